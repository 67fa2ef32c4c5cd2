// The report as a document that is edited in place: sections of sentences, locks and gaps.
import { history, redo, undo } from "prosemirror-history";
import { keymap } from "prosemirror-keymap";
import { EditorState, Plugin, PluginKey, TextSelection } from "prosemirror-state";
import { Decoration, DecorationSet, EditorView } from "prosemirror-view";
import { deleteSelection, goTo, insertGap, removeSentence, settle, step, toggleLock } from "./commands.js";
import { button, h, sign } from "./dom.js";
import { newKey, shownOf, utf16 } from "./pieces.js";
import { endsSentence } from "./sentences.js";
import { gapOf, lockOf, pieceAt, schema, sectionsOf, textOf } from "./schema.js";
import { allSections } from "./sections.js";
import { t } from "./texts.js";

const shownKey = new PluginKey("shown");

export class Editor {
  /**
   * `on`: changed(urgent), moved(), review(action, run). `shown`: what is drawn over the text, see #decorations.
   */
  constructor(place, pieces, on, editable) {
    this.pieces = pieces;
    this.on = on;
    this.editable = editable;
    /** Whether the model is told of the hints of gaps. */
    this.takesHints = true;
    /** key -> element that shows what is being written there, while a fill runs. */
    this.streams = new Map();
    /** Job id whose text is new, and its runs: see review.js. */
    this.fresh = { job: null, runs: [] };
    this.view = new EditorView(place, {
      state: EditorState.create({ doc: docOf([], new Map()), plugins: this.#plugins() }),
      editable: () => this.editable,
      nodeViews: {
        section: (node) => new SectionView(node),
        lock: (node) => new LockView(node, this),
        gap: (node, view, at) => new GapView(node, view, at, this),
      },
      attributes: () => ({
        role: "textbox",
        "aria-multiline": "true",
        "aria-label": t("editor.label"),
        "aria-readonly": String(!this.editable),
        // Also what cannot be edited is reached, and scrolled, by keyboard.
        tabindex: "0",
        spellcheck: "false",
      }),
      clipboardTextSerializer: (slice) => slice.content.textBetween(0, slice.content.size, "\n", (n) => n.attrs.text ?? ""),
      handlePaste: (view, event) => this.#paste(event),
      handleDrop: () => true,
      dispatchTransaction: (tr) => this.#dispatch(tr),
    });
  }

  get sections() {
    return sectionsOf(this.view.state.doc);
  }

  /** The browser tells of a moved caret a moment after it moved, and a key may come in between. */
  #caught(view) {
    view.domObserver.flush();
    return false;
  }

  run(command) {
    this.#caught(this.view);
    return command(this.view.state, (tr) => this.view.dispatch(tr), this.view);
  }

  lock = () => this.run(toggleLock(this.pieces));
  gap = () => this.run(insertGap(this.pieces, true));
  remove = () => this.run(removeSentence());
  undo = () => this.run(undo);
  redo = () => this.run(redo);
  next = () => this.run(step(1));
  previous = () => this.run(step(-1));

  /** Lock what was typed, wherever the caret is. */
  settle() {
    const tr = settle(this.pieces, this.view.state, { everything: true });
    if (tr) this.view.dispatch(tr);
  }

  /** Show this version. `undoable`: as a change that undo takes back, which is what a fill is. */
  show(report, { undoable = false } = {}) {
    const keyed = this.pieces.take(report);
    const doc = docOf(report.sections, keyed);
    if (!undoable) {
      this.view.updateState(EditorState.create({ doc, plugins: this.view.state.plugins }));
      this.redraw();
      return;
    }
    const { tr } = this.view.state;
    const after = sectionsOf(doc);
    // What is the same stays where it is, and so does the caret.
    [...this.sections].reverse().forEach(({ name, node, start }) => {
      const { content } = after.find((section) => section.name === name).node;
      const from = node.content.findDiffStart(content);
      if (from === null) return;
      const { a, b } = node.content.findDiffEnd(content);
      const overlap = Math.max(0, from - Math.min(a, b));
      tr.replaceWith(start + from, start + a + overlap, content.cut(from, b + overlap));
    });
    this.view.dispatch(tr.setMeta("stored", true));
    this.redraw();
  }

  redraw() {
    this.view.dispatch(this.view.state.tr.setMeta(shownKey, true).setMeta("addToHistory", false));
  }

  focus() {
    this.view.focus();
  }

  /** The caret to this piece of text, without a movement of the window. */
  begin(piece) {
    const { tr } = this.view.state;
    this.view.dispatch(tr.setSelection(TextSelection.create(tr.doc, piece.from)));
    this.view.focus();
  }

  goToKey(key) {
    const piece = this.sections.flatMap((section) => section.pieces).find((one) => one.key === key);
    if (!piece) return false;
    this.view.dispatch(goTo(this.view.state.tr, piece));
    this.view.focus();
    return true;
  }

  current() {
    return pieceAt(this.view.state.doc, this.view.state.selection.from);
  }

  #dispatch(tr) {
    const before = this.view.state;
    const { state } = before.applyTransaction(tr);
    this.view.updateState(state);
    if (!state.doc.eq(before.doc)) {
      for (const { pieces } of this.sections) {
        for (const piece of pieces) {
          if (piece.kind === "text" && !this.pieces.place(piece.key, piece.text)) this.pieces.typed.add(piece.key);
        }
      }
      if (!tr.getMeta("stored")) this.on.changed(tr.getMeta("save") === "now");
    }
    const hint = tr.getMeta("hint");
    if (hint) this.view.dom.querySelector(`[data-key="${hint}"] input`)?.focus();
    this.on.moved();
  }

  #plugins() {
    const type = (name) => (state, dispatch) => {
      dispatch?.(state.tr.insertText(name));
      return true;
    };
    return [
      new Plugin({ props: { handleKeyDown: (view) => this.#caught(view) } }),
      keymap({
        "Mod-z": undo,
        "Mod-y": redo,
        "Mod-Shift-z": redo,
        Enter: type("\n"),
        "Shift-Enter": type("\n"),
        Delete: deleteSelection(this.pieces),
        Backspace: deleteSelection(this.pieces),
        "Alt-Backspace": removeSentence(),
        "Alt-Delete": removeSentence(),
        "Alt-ArrowDown": step(1),
        "Alt-ArrowUp": step(-1),
      }),
      history(),
      new Plugin({ appendTransaction: (trs, before, after) => this.#tidy(trs, after) }),
      new Plugin({
        key: shownKey,
        state: {
          init: (config, state) => this.#decorations(state),
          apply: (tr, old, before, after) =>
            tr.docChanged || tr.getMeta(shownKey) ? this.#decorations(after) : old,
        },
        props: { decorations: (state) => shownKey.getState(state) },
      }),
    ];
  }

  /** Every text is a piece, no key stands twice, and what was typed is locked once the caret has left it. */
  #tidy(trs, state) {
    const tr = state.tr;
    const seen = new Set();
    const mark = schema.marks.piece;
    const give = (from, to, key) => tr.addMark(from, to, mark.create({ key }));
    for (const { pieces } of sectionsOf(state.doc)) {
      pieces.forEach((piece, number) => {
        const before = pieces[number - 1];
        const continues = !piece.key && before?.kind === "text" && before.key && !endsSentence(before.text);
        const key = continues ? before.key : !piece.key || seen.has(piece.key) ? newKey() : piece.key;
        seen.add(key);
        if (key !== piece.key && piece.kind === "text") give(piece.from, piece.to, key);
        else if (key !== piece.key) tr.setNodeAttribute(piece.from, "key", key);
        // A sentence that is typed after another one is a piece of its own: the other one was not changed.
        const stem = piece.kind === "text" && key === piece.key ? this.pieces.stem(key, piece.text) : 0;
        if (stem) give(piece.from + stem, piece.to, newKey());
      });
    }
    if (tr.docChanged) return tr;
    const travels = trs.some((one) => one.getMeta("history$") || one.getMeta("stored"));
    if (travels) this.resting = true;
    else if (trs.some((one) => one.docChanged)) this.resting = false;
    const typing = trs.some((one) => one.docChanged);
    return travels || this.resting ? null : settle(this.pieces, state, { typing });
  }

  #paste(event) {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    const words = text.replaceAll("\u0000", "");
    if (words && this.editable) {
      const { state } = this.view;
      this.view.dispatch(state.tr.replaceSelectionWith(textOf(words, newKey()), false).scrollIntoView());
    }
    return true;
  }

  #decorations(state) {
    const drawn = [];
    for (const { name, pieces } of sectionsOf(state.doc)) {
      for (const piece of pieces) {
        const stream = this.streams.get(piece.key);
        if (stream) {
          if (stream.element) drawn.push(Decoration.widget(piece.from, stream.element, { side: -1, key: `s${piece.key}` }));
          if (stream.started) drawn.push(drawnAs(piece, { class: "rewritten" }));
          else drawn.push(drawnAs(piece, { class: "open" }));
        }
        const place = this.pieces.place(piece.key, piece.text);
        if (piece.kind === "lock") {
          // The text of a lock never changes; what is known of it does, and then it is drawn again.
          const known = `${place?.origin ?? "clinician"} ${place?.warnings.length ?? 0}`;
          drawn.push(Decoration.node(piece.from, piece.to, { "data-known": known }));
        }
        if (piece.kind !== "text") continue;
        const origin = place?.origin ?? "clinician";
        const isFresh = Boolean(place && this.fresh.job && place.job_id === this.fresh.job);
        const words = [`piece-${origin}`, isFresh ? "fresh" : ""].join(" ");
        drawn.push(Decoration.inline(piece.from, piece.to, { class: words }));
        if (!stream?.started) {
          const tag = () => tagOf(origin, false, isFresh);
          drawn.push(Decoration.widget(piece.from, tag, { side: -1, key: `t${piece.key}${words}` }));
        }
        drawn.push(...disputes(place, piece));
      }
      this.#reviews(name, pieces, drawn);
    }
    return DecorationSet.create(state.doc, drawn);
  }

  #reviews(name, pieces, drawn) {
    for (const run of this.on.runs(name, pieces)) {
      const make = () => reviewOf(run, this.on.review);
      // The tag of a text that follows belongs to that text: the buttons stand before it.
      const side = pieces.some((piece) => piece.kind === "text" && piece.from === run.to) ? -2 : 1;
      const key = `${run.label} ${side}`;
      drawn.push(Decoration.widget(run.to, make, { side, key, stopEvent: () => true, ignoreSelection: true }));
    }
  }
}

function drawnAs(piece, attributes) {
  return piece.kind === "text"
    ? Decoration.inline(piece.from, piece.to, attributes)
    : Decoration.node(piece.from, piece.to, attributes);
}

function disputes(place, piece) {
  return (place?.warnings ?? []).map((warning) => {
    const from = piece.from + utf16(piece.text, warning.start);
    const to = piece.from + utf16(piece.text, warning.end);
    return Decoration.inline(from, to, { class: "dispute", title: warning.message });
  });
}

/** Who wrote the sentence, in words that everyone gets, and in a sign that is more than a colour. */
export function tagOf(origin, locked, isFresh = false) {
  const words = [t(`origin.${origin}`), locked ? t("origin.locked") : "", isFresh ? t("origin.new") : ""];
  const label = words.filter(Boolean).join(", ");
  const padlock = locked ? h("span", { class: "padlock", "aria-hidden": "true" }) : null;
  return h(
    "span",
    { class: `tag tag-${origin}${isFresh ? " tag-new" : ""}`, role: "img", "aria-label": label, title: label, contenteditable: "false" },
    padlock,
    h("span", { "aria-hidden": "true" }, t(`mark.${origin}`)),
  );
}

function reviewOf(run, act) {
  const many = run.texts > 1;
  const number = many ? t("review.count", { at: run.at + 1, of: run.texts }) : null;
  const words = [number, run.odds].filter(Boolean).join(" · ");
  const title = run.odds ? t("review.odds", { odds: run.odds }) : null;
  const count = words ? h("span", { class: "count", title }, words) : null;
  return h(
    "span",
    { class: "review", role: "group", "aria-label": t("review.label"), contenteditable: "false" },
    many ? button(sign("‹", t("review.previous")), null, () => act("previous", run)) : null,
    count,
    many ? button(sign("›", t("review.next")), null, () => act("next", run)) : null,
    button(t("review.accept"), null, () => act("accept", run)),
    button(t("review.reject"), null, () => act("reject", run)),
  );
}

class SectionView {
  constructor(node) {
    this.contentDOM = h("div", { class: "text", dir: "auto" });
    const title = t(`section.${node.attrs.name}`);
    this.dom = h(
      "section",
      { "data-section": node.attrs.name, "aria-label": title },
      h("h2", { contenteditable: "false" }, title),
      this.contentDOM,
    );
  }

  ignoreMutation(mutation) {
    return mutation.type !== "selection" && !this.contentDOM.contains(mutation.target);
  }
}

class LockView {
  constructor(node, editor) {
    const { key, text } = node.attrs;
    const place = editor.pieces.place(key, text);
    const origin = place?.origin ?? "clinician";
    this.dom = h("span", { class: `lock piece-${origin}`, "data-key": key });
    this.dom.append(tagOf(origin, true), ...marked(text, place?.warnings ?? []));
    this.node = node;
    this.signature = JSON.stringify([origin, place?.warnings ?? []]);
    this.editor = editor;
  }

  update(node) {
    if (node.type !== this.node.type || node.attrs.key !== this.node.attrs.key) return false;
    const place = this.editor.pieces.place(node.attrs.key, node.attrs.text);
    const signature = JSON.stringify([place?.origin ?? "clinician", place?.warnings ?? []]);
    return node.attrs.text === this.node.attrs.text && signature === this.signature;
  }

  ignoreMutation() {
    return true;
  }
}

/** The text with its disputed words underlined, each with the reason. */
function marked(text, warnings) {
  const parts = [];
  let at = 0;
  for (const warning of [...warnings].sort((one, two) => one.start - two.start)) {
    const from = utf16(text, warning.start);
    const to = utf16(text, warning.end);
    if (from < at || to <= from) continue;
    const reason = h("span", { class: "hidden-text" }, ` (${t("dispute.label")}: ${warning.message})`);
    parts.push(text.slice(at, from), h("u", { class: "dispute", title: warning.message }, text.slice(from, to), reason));
    at = to;
  }
  return [...parts, text.slice(at)];
}

class GapView {
  constructor(node, view, at, editor) {
    this.node = node;
    this.input = h("input", {
      type: "text",
      maxlength: "200",
      size: Math.max(editor.takesHints ? 12 : 20, node.attrs.hint.length + 1),
      value: node.attrs.hint,
      placeholder: t(editor.takesHints ? "gap.placeholder" : "gap.placeholder.deaf"),
      "aria-label": t(editor.takesHints ? "gap.label" : "gap.label.deaf"),
      title: editor.takesHints ? null : t("gap.deaf"),
      autocomplete: "off",
      disabled: !editor.editable,
    });
    this.input.addEventListener("input", () => {
      this.input.size = Math.max(12, this.input.value.length + 1);
      const position = at();
      if (position === undefined) return;
      const tr = view.state.tr.setNodeAttribute(position, "hint", this.input.value);
      view.dispatch(tr.setMeta("addToHistory", false));
    });
    this.input.addEventListener("keydown", (event) => {
      const leaves = event.key === "Enter" || event.key === "Escape";
      const removes = event.key === "Backspace" && !this.input.value;
      if (!leaves && !removes) return;
      event.preventDefault();
      event.stopPropagation();
      const position = at();
      const tr = removes ? view.state.tr.delete(position, position + 1) : view.state.tr;
      tr.setSelection(TextSelection.near(tr.doc.resolve(removes ? position : position + 1), 1));
      view.focus();
      view.dispatch(tr);
    });
    this.dom = h("span", { class: "gap", "data-key": node.attrs.key, contenteditable: "false" }, this.input);
  }

  update(node) {
    if (node.type !== this.node.type || node.attrs.key !== this.node.attrs.key) return false;
    if (document.activeElement !== this.input) this.input.value = node.attrs.hint;
    this.node = node;
    return true;
  }

  stopEvent() {
    return true;
  }

  ignoreMutation() {
    return true;
  }
}

/** The sections as a document, those that a report may have and has not empty; `keyed` has fragments' keys by id. */
export function docOf(sections, keyed) {
  const byName = new Map(sections.map((section) => [section.name, section]));
  const nodes = allSections(byName.keys()).map((name) => {
    const { fragments, gaps } = shownOf(byName.get(name));
    const content = fragments.map((one) => (one.locked ? lockOf : textOf)(one.text, keyed.get(one.id)));
    for (const { at, hint } of gaps.toReversed()) content.splice(at, 0, gapOf(hint));
    return schema.nodes.section.create({ name }, content);
  });
  return schema.node("doc", null, nodes);
}
