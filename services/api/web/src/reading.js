// The reading page: one report, its image, and everything that a clinician does to it.
import { api, Problem } from "./api.js";
import { goTo } from "./commands.js";
import { conflictDialog, finishDialog, keysDialog, retractDialog, signDialog } from "./dialogs.js";
import { button, h, sign } from "./dom.js";
import { Editor } from "./editor.js";
import { Fill, queued, requestOf } from "./fill.js";
import { Pieces } from "./pieces.js";
import { openOf, runsOf } from "./review.js";
import { gapOf, lockOf, textOf } from "./schema.js";
import { Side } from "./side.js";
import { t } from "./texts.js";
import { Unread } from "./unread.js";

// Long enough to finish a word, short enough that little is lost with a browser that dies.
const AUTOSAVE_MS = 700;
const LOOK_MS = 6000;
// More than one text for a gap costs the worker as many fillings. A style has one way to say a report.
const FILLS = { alternatives: 3 };
const RESTYLES = { alternatives: 1, rewrite: true };
const REVIEWED = ["drafted", "in-review"];
const SIGNED = ["signed", "amended", "corrected", "appended"];
const NOTHING_NEW = { job: null, locks: [], open: [], alternatives: [] };

class Reading {
  constructor(root) {
    this.root = root;
    this.id = root.dataset.reportId;
    this.mayEdit = root.dataset.mayEdit === "true";
    this.maySign = root.dataset.maySign === "true";
    this.user = root.dataset.user;
    this.pieces = new Pieces();
    this.saving = Promise.resolve();
    this.amending = false;
    this.status = root.querySelector("#status");
  }

  async start() {
    let { body } = await api.report(this.id);
    if (this.mayEdit && body.status === "drafted") {
      // From now on others see who reads it. Somebody else may have been faster.
      body = (await api.open(this.id, body.version).catch(() => api.report(this.id))).body;
    }
    const text = this.root.querySelector("#text");
    text.replaceChildren();
    this.editor = new Editor(
      text,
      this.pieces,
      {
        changed: (urgent) => this.#changed(urgent),
        moved: () => this.#moved(),
        runs: (name, pieces) => runsOf(name, pieces, this.pieces, this.editor?.fresh ?? NOTHING_NEW),
        review: (action, run) => this.#guard(() => this.#review(action, run)),
      },
      false,
    );
    this.editor.fresh = NOTHING_NEW;
    this.unread = new Unread(text, () => this.side.draw());
    this.side = new Side(this);
    this.#toolbar();
    this.#take(body);
    await this.#lastFill(body);
    document.addEventListener("keydown", (event) => this.#key(event));
    window.addEventListener("beforeunload", (event) => {
      if (this.#dirty().length) event.preventDefault();
    });
    this.editor.view.dom.addEventListener("blur", () => setTimeout(() => this.#left(), 0));
    setInterval(() => this.#look(), LOOK_MS);
    this.#watchDraft(body);
    this.#begin();
    this.root.dataset.ready = "true";
  }

  /** Whoever opens a draft is at its first sentence, where keys do what is meant, unless they went elsewhere already. */
  #begin() {
    const { edit, fill } = this.may;
    const wrote = (piece) => piece.kind === "text" && this.pieces.origin(piece.key, piece.text) === "model";
    const first = this.editor.sections.flatMap((section) => section.pieces).find(wrote);
    if (!edit || !first || document.activeElement !== document.body) return;
    this.editor.begin(first);
    if (fill) this.say(t("report.begin"));
  }

  get may() {
    const { status } = this.report;
    return {
      edit: this.mayEdit && (!SIGNED.includes(status) ? status !== "cancelled" && status !== "entered-in-error" : this.amending),
      fill: this.mayEdit && REVIEWED.includes(status) && !this.fill,
      sign: this.maySign && REVIEWED.includes(status),
      amend: this.maySign && SIGNED.includes(status),
      retry: this.mayEdit && status === "failed",
    };
  }

  /** What the model that wrote here last says of itself, {takes_hints, rewrites}: false is a no, undefined unknown. */
  get model() {
    return this.report.run_records.at(-1)?.record ?? {};
  }

  // ------------------------------------------------------------------------------------------------ showing

  /** A version that is shown in place of what was there. */
  #take(body, how = {}) {
    this.report = body;
    this.editor.editable = this.may.edit;
    this.editor.takesHints = this.model.takes_hints !== false;
    this.editor.show(body, how);
    this.#drawn();
  }

  #drawn() {
    const { report } = this;
    this.editor.editable = this.may.edit;
    this.root.querySelector("#banner").textContent = report.banner;
    this.root.querySelector("#banner").hidden = !report.banner;
    this.root.querySelector("#report-status").textContent = t(`status.${report.status}`);
    this.root.querySelector("#report-version").textContent = t("report.version", { version: report.version });
    const signed = report.signature && SIGNED.includes(report.status);
    this.root.querySelector("#report-signed").textContent = signed
      ? t("report.signed", { name: report.signature.signer.name, at: shortTime(report.signature.signed_at) })
      : "";
    const may = this.may;
    const shown = {
      // One takes the other's place, so that the text does not move when a fill begins.
      fill: this.mayEdit && REVIEWED.includes(report.status) && !this.fill,
      cancel: Boolean(this.fill),
      restyle: this.mayEdit && REVIEWED.includes(report.status),
      ...Object.fromEntries(["lock", "gap", "remove", "undo", "redo"].map((name) => [name, may.edit])),
      retry: may.retry,
      amend: may.amend && !this.amending,
      retract: may.amend && !this.amending,
      finish: this.amending,
      abandon: this.amending,
      sign: may.sign,
    };
    for (const [name, element] of Object.entries(this.buttons)) element.hidden = !shown[name];
    this.buttons.fill.disabled = !may.fill;
    const able = this.model.rewrites !== false;
    this.buttons.restyle.disabled = !may.fill || !able;
    this.buttons.restyle.title = t(able ? "do.restyle.title" : "restyle.unable");
    this.root.querySelector("#toolbar").hidden = false;
    this.editor.view.setProps({});
    this.unread.observe();
    this.side.draw();
  }

  say(text, kind = "calm", part = null) {
    this.status.className = `status-${kind}`;
    // The same words once more would be drawn, and read out, once more.
    const message = this.status.querySelector("#message");
    if (message.textContent !== text) message.textContent = text;
    const bar = this.status.querySelector("progress");
    bar.hidden = part === null;
    if (part !== null) bar.value = part;
  }

  #toolbar() {
    const act = (what) => () => this.#guard(what);
    const { editor } = this;
    this.buttons = {
      fill: button(t("do.fill"), "F2", act(() => this.#fill()), { class: "main turn", title: t("do.fill.title") }),
      cancel: button(t("do.cancel"), "Esc", act(() => this.fill?.cancel()), { class: "turn" }),
      restyle: button(t("do.restyle"), null, act(() => this.#restyle()), { "aria-keyshortcuts": "Shift+F2" }),
      lock: button(t("do.lock"), "F3", act(() => editor.lock()), { title: t("do.lock.title") }),
      gap: button(t("do.gap"), "F4", act(() => editor.gap()), { title: t("do.gap.title") }),
      remove: button(t("do.remove"), "Alt+⌫", act(() => editor.remove()), { class: "remove", title: t("do.remove.title") }),
      undo: button(sign("↶", t("do.undo")), null, act(() => editor.undo()), { title: `${t("do.undo")} (Ctrl+Z)` }),
      redo: button(sign("↷", t("do.redo")), null, act(() => editor.redo()), { title: `${t("do.redo")} (Ctrl+Y)` }),
      retry: button(t("do.retry"), null, act(() => this.#retry()), { class: "main" }),
      amend: button(t("do.amend"), null, act(() => this.#amend()), {}),
      retract: button(t("do.retract"), null, act(() => this.#retract()), {}),
      abandon: button(t("do.abandon"), null, act(() => this.#abandon()), { title: t("do.abandon.title") }),
      finish: button(t("do.finish"), "F9", act(() => this.#finish()), { class: "sign" }),
      sign: button(t("do.sign"), "F9", act(() => this.#sign()), { class: "sign", title: t("do.sign.title") }),
    };
    // The caret stays where it is when a button is pressed with the mouse.
    for (const element of Object.values(this.buttons)) {
      element.addEventListener("mousedown", (event) => event.preventDefault());
    }
    const help = button(sign("?", t("do.keys")), null, () => keysDialog(), { class: "quiet", title: `${t("do.keys")} (F1)`, "aria-keyshortcuts": "F1" });
    const toolbar = this.root.querySelector("#toolbar");
    toolbar.setAttribute("aria-label", t("toolbar.label"));
    toolbar.replaceChildren(...Object.values(this.buttons), help);
  }

  #key(event) {
    if (document.querySelector("dialog[open]") || event.isComposing) return;
    const plain = !event.ctrlKey && !event.altKey && !event.metaKey;
    const keys = {
      F1: () => keysDialog(),
      F2: () => this.may.fill && (event.shiftKey ? this.#restyle() : this.#fill()),
      F3: () => this.may.edit && this.editor.lock(),
      F4: () => this.may.edit && this.editor.gap(),
      F6: () => this.#nextPoint(),
      F9: () => (this.amending ? this.#finish() : this.may.sign && this.#sign()),
      Escape: () => this.fill?.cancel(),
    };
    const alternative = { ".": "next", ",": "previous" }[event.key];
    const action = plain ? keys[event.key] : null;
    if (action && !(event.key === "Escape" && !this.fill)) {
      event.preventDefault();
      this.#guard(action);
    } else if (event.altKey && alternative) {
      const run = this.#runHere();
      if (!run) return;
      event.preventDefault();
      if (run.texts < 2) this.say(t("review.alone"));
      else this.#guard(() => this.#review(alternative, run));
    }
  }

  #runHere() {
    const { from } = this.editor.view.state.selection;
    return this.#runs().find((run) => run.from <= from && from <= run.to);
  }

  #runs() {
    return this.editor.sections.flatMap(({ name, pieces }) => runsOf(name, pieces, this.pieces, this.editor.fresh));
  }

  /** The caret to the next thing that wants a look: a gap, new text, a dispute, a sentence that was not read. */
  #nextPoint() {
    const unread = new Set(this.unread.of(this.editor.sections, this.pieces).map((one) => one.key));
    const fresh = new Set(this.#runs().map((run) => run.keys[0]));
    const wants = (piece) =>
      piece.kind === "gap" || unread.has(piece.key) || fresh.has(piece.key) ||
      this.pieces.place(piece.key, piece.text)?.warnings.length > 0;
    const all = this.editor.sections.flatMap((section) => section.pieces).filter(wants);
    const { from } = this.editor.view.state.selection;
    const next = all.find((piece) => piece.from > from) ?? all[0];
    if (!next) return this.say(t("point.none"));
    this.editor.view.dispatch(goTo(this.editor.view.state.tr, next));
    this.editor.focus();
  }

  /** Do it; what goes wrong is said, and nothing is lost. */
  async #guard(what) {
    try {
      await what();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.say(told(problem), "problem");
    }
  }

  // ------------------------------------------------------------------------------------------------ saving

  #changed(urgent) {
    this.unread?.observe();
    this.side?.draw();
    if (this.amending) return;
    clearTimeout(this.timer);
    if (!this.#dirty().length) return;
    if (!this.fill) this.say(t("save.changed"));
    this.timer = setTimeout(() => this.flush().catch(() => {}), urgent ? 0 : AUTOSAVE_MS);
  }

  #moved() {
    const { piece } = this.editor?.current() ?? {};
    const pressed = String(piece?.kind === "lock");
    const lock = this.buttons?.lock;
    if (lock && lock.getAttribute("aria-pressed") !== pressed) lock.setAttribute("aria-pressed", pressed);
  }

  #left() {
    if (!this.editor.view.hasFocus() && !this.fill) this.editor.settle();
  }

  #dirty() {
    return this.editor.sections.filter(({ name, pieces }) => !this.pieces.isStored(name, pieces));
  }

  /** Everything saved, or a Problem. One save at a time, in order. */
  flush() {
    clearTimeout(this.timer);
    this.saving = this.saving.catch(() => {}).then(() => this.#save());
    return this.saving;
  }

  async #save() {
    const sent = this.#dirty();
    if (!sent.length || !this.may.edit || this.amending) return;
    try {
      await this.#put(sent, sent.map(({ name, pieces }) => this.pieces.edit(name, pieces)));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 412) return this.#conflict();
      this.say(problem.status === 0 || problem.status >= 500 ? t("save.away") : told(problem), "problem");
      // What could not be sent is tried again: typing goes on meanwhile.
      if (problem.status === 0 || problem.status >= 500) this.timer = setTimeout(() => this.flush().catch(() => {}), 3000);
      throw problem;
    }
  }

  async #put(sent, edits) {
    const { body } = await api.edit(this.id, this.report.version, edits);
    const same = this.pieces.saved(sent, body);
    this.report = body;
    this.editor.redraw();
    this.#drawn();
    if (same) this.say(t("save.done", { version: body.version }));
    else this.say(t("save.broken"), "problem");
    this.side.check();
  }

  /** Somebody else was faster: both texts are shown, and whoever sits here chooses. */
  async #conflict() {
    // It may be the fill of this very page that was faster. Its end, which is about to be told, saves what is not saved.
    if (this.fill) return undefined;
    const { body: theirs } = await api.report(this.id);
    if (SIGNED.includes(theirs.status) || !this.#dirty().length) {
      this.say(t("conflict.signed"), "problem");
      return this.#take(theirs);
    }
    const mine = this.editor.sections.map(({ name, pieces }) => ({ name, text: pieces.map((one) => one.text).join("") }));
    const keeps = await conflictDialog(mine, theirs);
    if (!keeps) {
      this.#take(theirs);
      this.say(t("conflict.theirs"));
      return undefined;
    }
    this.pieces.take(theirs);
    this.report = theirs;
    await this.#save();
    return undefined;
  }

  /** Whether somebody else made a new version. The list of versions is not an event of the trail while it is the same. */
  async #look() {
    if (document.hidden || this.fill || this.looking) return;
    this.looking = true;
    try {
      const answer = await api.watch(this.id, this.versionsTag);
      this.versionsTag = answer.tag;
      const newest = answer.body?.versions.at(-1);
      if (!newest || newest.version <= this.report.version || this.amending) return;
      await this.saving.catch(() => {});
      if (newest.version <= this.report.version) return;
      if (this.#dirty().length) await this.flush();
      else {
        const { body } = await api.report(this.id);
        this.#take(body);
        this.say(t("other.changed", { name: newest.author.name, version: newest.version }));
      }
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 401) this.say(told(problem), "problem");
    } finally {
      this.looking = false;
    }
  }

  // ------------------------------------------------------------------------------------------------ filling

  /** What is not locked is said again in the site's style: a fill that is shown what stood there. */
  #restyle() {
    if (this.model.rewrites === false) return this.say(t("restyle.unable"), "problem");
    return this.#fill(RESTYLES);
  }

  async #fill(wanted = FILLS) {
    if (this.fill || !REVIEWED.includes(this.report.status)) return;
    performance.mark("inlay-fill");
    this.editor.settle();
    await this.flush();
    const asked = requestOf(this.editor.view.state.doc, this.pieces, wanted);
    if (!asked) {
      this.say(t(wanted.rewrite ? "restyle.nothing" : "fill.nothing"), "problem");
      return;
    }
    const { body: job } = await api.infill(this.id, this.report.version, asked.body);
    this.caretAtFill = this.editor.view.state.selection.from;
    this.fill = new Fill(job, asked, this.editor, {
      told: (text, kind, part) => this.say(text, kind, kind === "busy" ? part ?? null : null),
      ended: (done, clear) => this.#guard(() => this.#filled(done, asked, clear)),
    });
    this.#drawn();
  }

  async #filled(job, asked, clear) {
    if (job.state !== "succeeded") {
      this.fill = null;
      clear();
      this.#drawn();
      const words = job.state === "failed" ? t("fill.failed", { reason: job.reason?.text || job.reason?.code || "" }) : t(`fill.${job.state}`);
      this.say(words, job.state === "failed" ? "problem" : "calm");
      return this.flush();
    }
    // Until its text is here the fill is not over: nobody else's version is looked for.
    const { body } = await this.#patiently(() => api.report(this.id))
      .finally(() => this.#saved())
      .finally(() => (this.fill = null));
    this.editor.streams.clear();
    if (this.#dirty().length) return this.#overtaken(body);
    const { from } = this.editor.view.state.selection;
    const elsewhere = from !== (this.caretAtFill ?? from);
    const opened = asked.opened.map(({ section, item, pieces }) => ({ section, item, before: pieces }));
    this.editor.fresh = opened.length ? freshOf(job, opened) : foundOf(job);
    this.#take(body, { undoable: true });
    performance.mark("inlay-filled");
    const disputes = body.sections.flatMap((one) => one.fragments).filter((one) => one.warnings.length).length;
    this.say(ended(job.run_record ?? {}, this.#runs().length, disputes));
    this.side.check();
    const first = this.#runs()[0];
    // Whoever has gone on to another place stays there.
    if (first && !elsewhere) this.editor.goToKey(first.keys[0]);
    return undefined;
  }

  /** No save is under way any more. One that began before a fill came is refused, and what it holds is still to be saved. */
  #saved() {
    clearTimeout(this.timer);
    return this.saving.catch(() => {});
  }

  /** What was typed while a fill ended stands: it is saved over the fill, which is given up. */
  async #overtaken(filled) {
    this.editor.redraw();
    this.pieces.take(filled);
    this.report = filled;
    await this.flush();
    this.say(t("fill.superseded"), "calm");
  }

  /** What the server gives, also where it does not answer for a while. */
  async #patiently(ask) {
    for (;;) {
      try {
        return await ask();
      } catch (problem) {
        if (!(problem instanceof Problem) || (problem.status !== 0 && problem.status < 500)) throw problem;
        this.say(t("fill.reconnecting"), "busy");
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  }

  /** After a reload: what the last fill wrote and nobody has accepted yet is still marked. */
  async #lastFill(body) {
    const jobs = body.jobs.filter((job) => job.kind === "infill");
    const running = jobs.find((job) => ["queued", "running", "waiting-images"].includes(job.state));
    if (running && this.mayEdit) {
      this.fill = new Fill(running, { layout: [], opened: [] }, this.editor, {
        told: (text, kind, part) => this.say(text, kind, part ?? null),
        ended: (done, clear) => this.#guard(() => this.#filled(done, { opened: [] }, clear)),
      });
      this.#drawn();
      return;
    }
    const last = jobs.filter((job) => job.state === "succeeded").at(-1);
    const open = last && body.sections.some((one) => one.fragments.some((two) => two.job_id === last.id && !two.locked));
    if (!open || !REVIEWED.includes(body.status)) return;
    const { body: job } = await api.job(last.id).catch(() => ({}));
    if (!job) return;
    this.editor.fresh = foundOf(job);
    this.editor.redraw();
    this.#drawn();
  }

  async #review(action, shown) {
    if (action === "reject") await this.#recall();
    // The buttons may have been drawn before something else moved.
    const run = this.#runs().find((one) => one.keys[0] === shown.keys[0]);
    if (!this.may.edit || !run) return;
    const { state } = this.editor.view;
    const tr = state.tr.setMeta("save", "now");
    if (action === "accept") {
      const { pieces } = this.editor.sections.find((section) => section.name === run.section);
      const locked = pieces.filter((one) => run.keys.includes(one.key)).map((one) => lockOf(one.text, one.key));
      this.editor.view.dispatch(tr.replaceWith(run.from, run.to, locked));
    } else if (action === "reject") {
      this.editor.view.dispatch(tr.replaceWith(run.from, run.to, this.#before(run)));
    } else await this.#exchange(run, (run.at + (action === "next" ? 1 : run.texts - 1)) % run.texts);
    this.editor.focus();
  }

  /** After a reload: what stood there before is in the version that the fill was asked of. */
  async #recall() {
    const { fresh } = this.editor;
    if (!fresh.found) return;
    const { body } = await api.version(this.id, fresh.found.base_version);
    const known = openOf(fresh.found, body, this.pieces);
    const missing = fresh.open.filter(({ section, item }) => !known.some((one) => one.section === section && one.item === item));
    fresh.open = [...known, ...missing];
    fresh.found = null;
  }

  /** What stood where this run is, as nodes; a gap where that is not known. What is there already comes no second time. */
  #before(run) {
    const before = this.editor.fresh.open.find((one) => one.section === run.section && one.item === run.item)?.before;
    if (!before) return [gapOf()];
    const { pieces } = this.editor.sections.find((section) => section.name === run.section);
    const keys = new Set(pieces.map((piece) => piece.key));
    return before
      .filter((one) => !keys.has(one.key))
      .map((one) => (one.kind === "gap" ? gapOf(one.hint, one.key) : textOf(one.text, one.key)));
  }

  /** Another text of the model in place of this one. It is named, not sent, so that it stays the model's. */
  async #exchange(run, text) {
    await this.flush();
    const name = run.section;
    const all = this.editor.sections.find((section) => section.name === name).pieces;
    const pieces = all.filter((piece) => piece.kind !== "gap");
    const edit = this.pieces.edit(name, all);
    const first = pieces.findIndex((piece) => piece.key === run.keys[0]);
    const after = pieces.length - first - run.keys.length;
    edit.fragments.splice(first, run.keys.length, { offered: { job_id: this.editor.fresh.job, item: run.item, text }, locked: false });
    edit.gaps = edit.gaps.map((gap) => (gap.at > first ? { ...gap, at: gap.at - run.keys.length + 1 } : gap));
    const { body } = await api.edit(this.id, this.report.version, [edit]);
    const keyed = this.pieces.take(body);
    this.report = body;
    const fragments = body.sections.find((section) => section.name === name).fragments;
    const written = fragments.slice(first, fragments.length - after);
    const { from, to } = span(this.editor, name, run.keys);
    const nodes = written.map((one) => textOf(one.text, keyed.get(one.id)));
    const { tr } = this.editor.view.state;
    this.editor.view.dispatch(tr.replaceWith(from, to, nodes).setMeta("stored", true));
    if (written.length) this.editor.goToKey(keyed.get(written[0].id));
    this.#drawn();
    const { odds } = this.#runHere() ?? {};
    const exchanged = t("review.exchanged", { at: text + 1, of: run.texts });
    this.say(odds ? `${exchanged} ${t("review.odds", { odds })}` : exchanged);
    this.side.check();
  }

  async #retry() {
    const { body: job } = await api.retry(this.id, this.report.version);
    this.report.jobs.push(job);
    this.say(t("draft.asked"));
    this.#watchDraft({ ...this.report, status: "registered" });
  }

  /** While the first draft is being written its canvases are shown as they come. */
  #watchDraft(body) {
    const job = body.jobs.find((one) => one.kind === "draft" && ["queued", "running", "waiting-images"].includes(one.state));
    if (!job) return;
    const live = h("div", { class: "draft-canvas", "aria-live": "off" });
    this.root.querySelector("#text").prepend(live);
    const source = api.events(job.id);
    source.addEventListener("state", (event) => {
      const now = JSON.parse(event.data);
      this.say(now.state === "queued" ? queued("job.queued", now) : t(`job.${now.state}`), "busy");
    });
    source.addEventListener("step", (event) => {
      const canvas = JSON.parse(event.data);
      live.textContent = canvas.text;
      this.say(t("fill.step", { step: canvas.step, steps: canvas.steps }), "busy", canvas.step / canvas.steps);
    });
    source.addEventListener("result", () => {
      source.close();
      live.remove();
      this.#guard(async () => {
        const { body: drafted } = await api.report(this.id);
        const opened = this.mayEdit && drafted.status === "drafted" ? await api.open(this.id, drafted.version) : null;
        this.#take(opened?.body ?? drafted);
        this.#begin();
        this.say(t("draft.done"));
        this.side.check();
      });
    });
  }

  // ------------------------------------------------------------------------------------------------ signing

  async #sign() {
    if (!this.may.sign) return;
    if (this.fill) {
      this.say(t("sign.busy"), "problem");
      return;
    }
    this.editor.settle();
    await this.flush();
    if (this.#dirty().length) return;
    const { version } = this.report;
    const [{ body: checks }, draft] = await Promise.all([api.checks(this.id), this.#draft()]);
    const gaps = this.editor.sections.flatMap((section) => section.pieces).filter((piece) => piece.kind === "gap").length;
    const unread = this.unread.of(this.editor.sections, this.pieces);
    const disputes = this.report.sections.flatMap((section) => section.fragments).flatMap((one) => one.warnings.map((two) => two.message));
    const signs = await signDialog({ report: this.report, draft, checks: checks.checks, disputes, unread, gaps, user: this.user });
    if (!signs) return this.editor.focus();
    try {
      const { body } = await api.sign(this.id, version);
      this.editor.fresh = NOTHING_NEW;
      this.#take(body);
      this.say(t("sign.done", { version: body.version }));
    } catch (problem) {
      if (problem.status !== 412) throw problem;
      const { body } = await api.report(this.id);
      this.#take(body);
      this.say(t("sign.moved", { version: body.version }), "problem");
    }
    return undefined;
  }

  /** The newest text that came from the model as a whole: what the signed text is compared with. */
  async #draft() {
    const { body } = await api.versions(this.id);
    const made = body.versions.findLast((version) => version.event === "draft");
    return made ? (await api.version(this.id, made.version)).body : null;
  }

  #amend() {
    this.amending = true;
    this.#drawn();
    this.editor.focus();
    this.say(t("amend.begun"));
  }

  #abandon() {
    this.amending = false;
    this.#take(this.report);
    this.say(t("amend.abandoned"));
  }

  async #finish() {
    this.editor.settle();
    const sent = this.#dirty();
    if (!sent.length) {
      this.say(t("amend.nothing"), "problem");
      return;
    }
    const now = this.editor.sections.map(({ name, pieces }) => ({ name, text: pieces.map((one) => one.text).join("") }));
    const said = await finishDialog(this.report, now, this.user);
    if (!said) return;
    const sections = sent.map(({ name, pieces }) => this.pieces.edit(name, pieces));
    const { body } = await api.amend(this.id, this.report.version, { ...said, sections });
    this.amending = false;
    this.#take(body);
    this.say(t("amend.done", { version: body.version }));
  }

  async #retract() {
    const reason = await retractDialog();
    if (!reason) return;
    const { body } = await api.retract(this.id, this.report.version, reason);
    this.#take(body);
    this.say(t("retract.done"));
  }
}

/** What a fill that has ended says: what is new or disputed, what the model left aside, did not finish, and lacked. */
function ended({ notes = [], context }, count, disputes) {
  const said = [disputes ? t("fill.disputed", { count: disputes }) : t(context?.rewrite ? "restyle.done" : "fill.done", { count })];
  if (!disputes && !context?.rewrite && notes.includes("hints-left-aside")) said.push(t("gap.deaf"));
  if (notes.includes("unfinished-sentence")) said.push(t("fill.unfinished"));
  if (notes.includes("shorter-than-asked")) said.push(t("fill.short"));
  if (notes.includes("not-trained-without-image")) said.push(t("fill.unseen"));
  return said.join(" ");
}

function freshOf(job, open) {
  return { job: job.id, locks: job.locks ?? [], open, alternatives: job.alternatives ?? [] };
}

/** The same of a job that another page asked for, this one before a reload: `found` says where to look for what stood there. */
function foundOf(job) {
  const open = (job.alternatives ?? []).map(({ section, item }) => ({ section, item, before: null }));
  return { ...freshOf(job, open), found: job };
}

function span(editor, name, keys) {
  const pieces = editor.sections.find((section) => section.name === name).pieces.filter((one) => keys.includes(one.key));
  return { from: pieces[0].from, to: pieces.at(-1).to };
}

function told(problem) {
  if (problem.status === 0) return t("problem.away");
  if (problem.status === 401) return t("problem.login");
  return problem.message;
}

export function shortTime(moment) {
  return new Date(moment).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

async function startViewer(root) {
  const place = root.querySelector("#image");
  // The image is there without the viewer, which comes once the report can be read.
  const { startViewer: start } = await import("./viewer.js");
  await start(place, root.dataset.reportId);
}

const root = document.querySelector("[data-report-id]");
const reading = new Reading(root);
reading
  .start()
  .then(() => startViewer(root))
  .catch((problem) => {
    reading.say(problem instanceof Problem ? told(problem) : t("problem.page"), "problem");
    if (!(problem instanceof Problem)) throw problem;
  });
