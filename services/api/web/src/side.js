// Beside the text: what wants a look before signing, versions, earlier reports and the trail.
import { api, Problem } from "./api.js";
import { comparedSections, sectionTexts } from "./dialogs.js";
import { bdi, button, h, time } from "./dom.js";
import { replayOf } from "./replay.js";
import { t } from "./texts.js";

const TABS = ["checks", "versions", "priors", "trail"];

export class Side {
  constructor(reading) {
    this.reading = reading;
    this.checks = [];
    this.place = reading.root.querySelector("#side");
    this.place.hidden = false;
    this.tabs = TABS.map((name, number) =>
      h(
        "button",
        { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "side-panel", "aria-selected": "false", tabindex: number ? "-1" : "0", onclick: () => this.show(name) },
        t(`side.${name}`),
        name === "checks" ? h("span", { class: "badge", id: "check-count", hidden: true }) : null,
      ),
    );
    const list = h("div", { role: "tablist", "aria-label": t("side.label") }, this.tabs);
    list.addEventListener("keydown", (event) => this.#arrow(event));
    this.panel = h("div", { id: "side-panel", role: "tabpanel", tabindex: "0" });
    this.place.replaceChildren(list, this.panel);
    this.show("checks");
  }

  show(name) {
    this.shown = name;
    this.tabs.forEach((tab, number) => {
      tab.setAttribute("aria-selected", String(TABS[number] === name));
      tab.tabIndex = TABS[number] === name ? 0 : -1;
    });
    this.panel.setAttribute("aria-labelledby", `tab-${name}`);
    this.panel.replaceChildren();
    const draw = { checks: () => this.check(), versions: () => this.#versions(), priors: () => this.#priors(), trail: () => this.#trail() };
    return this.#try(draw[name]);
  }

  #arrow(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (TABS.indexOf(this.shown) + step + TABS.length) % TABS.length;
    this.show(TABS[next]);
    this.tabs[next].focus();
  }

  async #try(draw) {
    try {
      await draw();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.panel.replaceChildren(h("p", {}, problem.status === 403 ? t("side.forbidden") : t("side.failed")));
    }
  }

  // ---------------------------------------------------------------------------------------------- checks

  /** Ask the server again what it notices about the newest version. */
  async check() {
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.#try(async () => {
      if (!this.reading.report) return;
      this.checks = (await api.checks(this.reading.id)).body.checks;
      this.draw();
    }), 100);
  }

  draw() {
    const { reading } = this;
    if (!reading.report) return;
    const unread = reading.unread.of(reading.editor.sections, reading.pieces);
    const places = new Map();
    for (const { pieces } of reading.editor.sections) {
      for (const piece of pieces) {
        const place = reading.pieces.place(piece.key, piece.text);
        if (place) places.set(place.id, { key: piece.key, place });
      }
    }
    const disputes = [...places.values()].flatMap(({ key, place }) => place.warnings.map((one) => ({ key, message: one.message })));
    const count = this.checks.length + disputes.length;
    const badge = this.place.querySelector("#check-count");
    badge.hidden = !count;
    badge.textContent = count;
    if (this.shown !== "checks") return;
    const go = (key, text, kind) =>
      h("li", { class: kind }, key ? button(text, null, () => reading.editor.goToKey(key), { class: "point" }) : text);
    const items = [
      ...disputes.map((one) => go(one.key, one.message, "disputed")),
      ...this.checks.map((one) => go(places.get(one.fragment_id)?.key, `${t(`section.${one.section}`)}: ${one.message}`, one.severity)),
      ...unread.map((one) => go(one.key, t("checks.unread", { text: one.text.trim() }), "unread")),
    ];
    const signature = items.map((one) => one.textContent).join("\n");
    if (signature === this.drawn && this.panel.firstChild) return;
    this.drawn = signature;
    this.panel.replaceChildren(items.length ? h("ul", { class: "points" }, items) : h("p", { class: "clear" }, t("checks.clear")));
  }

  // ---------------------------------------------------------------------------------------------- versions

  async #versions() {
    this.drawn = null;
    const { body } = await api.versions(this.reading.id);
    const { versions } = body;
    const options = (chosen) =>
      versions.map((one) => h("option", { value: one.version, selected: one.version === chosen }, versionLabel(one)));
    const newest = versions.at(-1).version;
    const drafted = versions.findLast((one) => one.event === "draft")?.version ?? 1;
    const left = h("select", { "aria-label": t("versions.from") }, options(drafted));
    const right = h("select", { "aria-label": t("versions.to") }, options(newest));
    const result = h("div", {});
    const compare = () => this.#try(async () => {
      const pair = await Promise.all([left, right].map((one) => api.version(this.reading.id, one.value)));
      const [before, after] = pair.map((answer) => answer.body);
      result.replaceChildren(comparedSections(sectionTexts(before), sectionTexts(after)), this.#who(after), runRecords(after));
    });
    left.addEventListener("change", compare);
    right.addEventListener("change", compare);
    this.panel.replaceChildren(h("p", { class: "two-versions" }, left, " → ", right), result);
    await compare();
  }

  #who(report) {
    const rows = report.sections.flatMap(({ name, fragments }) =>
      fragments.map((one) =>
        h("tr", {}, h("td", {}, t(`section.${name}`)), h("td", { class: "text", dir: "auto" }, one.text), h("td", {}, t(`origin.${one.origin}`), one.locked ? `, ${t("origin.locked")}` : "", one.job_id ? h("small", {}, ` ${t("versions.job", { job: one.job_id.slice(0, 8) })}`) : null)),
      ),
    );
    return h("details", {}, h("summary", {}, t("versions.who")), h("table", { class: "plain" }, h("tbody", {}, rows)));
  }

  // ---------------------------------------------------------------------------------------------- priors, trail

  async #priors() {
    this.drawn = null;
    const { body } = await api.priors(this.reading.id);
    if (!body.priors.length) {
      this.panel.replaceChildren(h("p", {}, t("priors.none")));
      return;
    }
    this.panel.replaceChildren(
      ...body.priors.map((prior) =>
        h(
          "article",
          {},
          h("h3", {}, bdi(prior.procedure ?? t("priors.study")), " ", prior.performed_at ? time(prior.performed_at, prior.performed_at.slice(0, 10)) : ""),
          ...prior.sections.map((section) => h("div", {}, h("h4", {}, bdi(section.title)), h("div", { class: "text", dir: "auto" }, section.text))),
        ),
      ),
    );
  }

  async #trail() {
    this.drawn = null;
    const events = [];
    let page;
    do {
      page = (await api.audit(this.reading.id, events.length)).body.events;
      events.push(...page);
    } while (page.length === 200 && events.length < 2000);
    const rows = events.toReversed().map((event) =>
      h("tr", {}, h("td", {}, time(event.at, event.at.slice(0, 19).replace("T", " "))), h("td", {}, h("code", {}, event.tag)), h("td", {}, bdi(event.actor.name)), h("td", {}, event.subject.version ? t("report.version", { version: event.subject.version }) : "")),
    );
    const head = ["trail.at", "trail.event", "trail.who", "trail.version"].map((key) => h("th", { scope: "col" }, t(key)));
    this.panel.replaceChildren(h("table", { class: "plain" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
  }
}

function versionLabel(version) {
  const event = version.event ? t(`event.${version.event}`) : t("event.register");
  return `${version.version} · ${event} · ${version.author.name}`;
}

function recordOf({ job_id: job, kind, record }) {
  const what = record.context?.rewrite ? "restyle" : kind;
  const title = h("h4", {}, t(`versions.run.${what}`), h("small", {}, ` ${t("versions.job", { job: job.slice(0, 8) })}`));
  return [title, replayOf(job), h("pre", { tabindex: "0" }, JSON.stringify(record, null, 1))];
}

function runRecords(report) {
  const used = new Set(report.sections.flatMap((one) => one.fragments.map((two) => two.job_id)).filter(Boolean));
  const records = report.run_records.filter((one) => used.has(one.job_id));
  return records.length
    ? h("details", {}, h("summary", {}, t("versions.records")), records.flatMap(recordOf))
    : "";
}
