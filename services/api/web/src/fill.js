// Asking the model for what is not locked, and showing its canvases in place while it writes.
import { api } from "./api.js";
import { gapTexts } from "./canvas.js";
import { h } from "./dom.js";
import { sectionsOf } from "./schema.js";
import { asWritten } from "./sections.js";
import { t } from "./texts.js";

// A worker takes a job within a moment; whoever waits longer is told, and goes on.
const LONELY_MS = 4000;

/**
 * What is asked of the model: {body, layout, opened}. Locks go by their ids, what stands open between them are items.
 * `layout` is in the order in which the model writes; `opened` says for each item which pieces it stands for. With
 * `rewrite` open text is to be said again in the site's style. Null where nothing is open, or no text to be said again.
 */
export function requestOf(doc, pieces, { alternatives, rewrite = false }) {
  const sections = [];
  const layout = [];
  const opened = [];
  for (const section of sectionsOf(doc)) {
    const imported = section.pieces.some((piece) => pieces.origin(piece.key, piece.text) === "imported" && piece.text);
    if (imported || !section.pieces.length) continue;
    const items = itemsOf(section.pieces);
    layout.push({
      name: section.name,
      items: items.map((item) => (item.lock ? { lock: item.lock.text } : { open: item.open[0].key })),
    });
    if (items.every((item) => item.lock)) continue;
    sections.push({ name: section.name, items: items.map((item) => asked(item, pieces, rewrite)) });
    items.forEach((item, number) => {
      if (item.open) opened.push({ section: section.name, item: number, pieces: item.open });
    });
  }
  const any = rewrite ? sections.some(({ items }) => items.some((item) => item.text)) : sections.length;
  return any ? { body: { sections, alternatives, rewrite }, layout: asWritten(layout), opened } : null;
}

/** Locks, and between two of them one stretch that is open: the model writes it as a whole, gaps and text alike. */
export function itemsOf(pieces) {
  const items = [];
  for (const piece of pieces) {
    const last = items.at(-1);
    if (piece.kind === "lock") items.push({ lock: piece });
    else if (last?.open) last.open.push(piece);
    else items.push({ open: [piece] });
  }
  return items;
}

function asked(item, pieces, rewrite) {
  if (item.lock) return { lock: pieces.place(item.lock.key, item.lock.text).id };
  const text = item.open.map((piece) => piece.text).join("");
  // What is said again is said from the text: the model is not told of gaps in it.
  if (rewrite && text.trim()) return { text, locked: false };
  const gaps = item.open.filter((piece) => piece.kind === "gap");
  const hint = gaps.map((piece) => piece.hint.trim()).filter(Boolean).join(", ");
  if (gaps.length) return { gap: { hint: hint.slice(0, 200) || null } };
  return { text, locked: false };
}

/** One fill, from the job to its end. `on`: told(text, kind), ended(job or null). */
export class Fill {
  constructor(job, asked, editor, on) {
    this.job = job;
    this.asked = asked;
    this.editor = editor;
    this.on = on;
    this.canvases = 0;
    for (const { pieces } of asked.opened) {
      // There is no place for a caret in what is only shown: whoever points into it wants the text, not the fill.
      const onmousedown = (event) => {
        event.preventDefault();
        this.cancel();
      };
      const element = h("span", { class: "stream", contenteditable: "false", "aria-hidden": "true", onmousedown });
      pieces.forEach((piece, number) => {
        editor.streams.set(piece.key, { element: number ? null : element, started: false, words: element });
      });
    }
    editor.redraw();
    this.#state(job);
    this.source = api.events(job.id);
    this.source.addEventListener("state", (event) => this.#state(JSON.parse(event.data)));
    this.source.addEventListener("step", (event) => this.#step(JSON.parse(event.data)));
    this.source.addEventListener("result", (event) => this.#end(JSON.parse(event.data)));
    this.source.addEventListener("error", () => {
      if (this.source?.readyState === EventSource.CLOSED) this.#poll();
      else if (!this.ended) this.on.told(t("fill.reconnecting"), "busy");
    });
  }

  #state(job) {
    clearTimeout(this.lonely);
    if (job.state === "running") this.on.told(t("fill.running"), "busy");
    else if (job.state === "waiting-images") this.on.told(t("fill.images"), "busy");
    // How it ended is told with its result.
    else if (job.state === "queued") {
      this.on.told(queued("fill.queued", job), "busy");
      this.lonely = setTimeout(() => this.on.told(queued("fill.lonely", job), "lonely"), LONELY_MS);
    }
  }

  #step(canvas) {
    if (this.ended) return;
    clearTimeout(this.lonely);
    this.canvases += 1;
    const found = gapTexts(canvas, this.asked.layout);
    let begins = false;
    for (const { pieces } of this.asked.opened) {
      const stream = this.editor.streams.get(pieces[0].key);
      const words = found.get(pieces[0].key);
      if (!words || !stream) continue;
      drawCanvas(stream.words, words);
      if (stream.started) continue;
      begins = true;
      for (const piece of pieces) this.editor.streams.get(piece.key).started = true;
    }
    if (begins) this.editor.redraw();
    if (this.canvases === 1) performance.mark("inlay-first-canvas");
    this.on.told(t("fill.step", { step: canvas.step, steps: canvas.steps }), "busy", canvas.step / canvas.steps);
  }

  /** Streams are bounded on the server: without one the job is asked now and then. */
  async #poll() {
    while (!this.ended) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const job = await api.job(this.job.id).catch(() => null);
      if (!job) this.on.told(t("fill.reconnecting"), "busy");
      else if (["queued", "running", "waiting-images"].includes(job.body.state)) this.#state(job.body);
      else this.#end(job.body);
    }
  }

  async cancel() {
    this.on.told(t("fill.cancelling"), "busy");
    try {
      const { body } = await api.cancel(this.job.id);
      if (body.state === "cancelled") this.#end(body);
    } catch (problem) {
      // It has just ended by itself, which its stream tells.
      if (problem.status !== 409) this.on.told(problem.message, "problem");
    }
  }

  #end(job) {
    if (this.ended) return;
    this.ended = true;
    clearTimeout(this.lonely);
    this.source.close();
    this.on.ended(job, () => {
      this.editor.streams.clear();
      this.editor.redraw();
    });
  }
}

/** Words about a job that waits, with its place in the queue where the server has told it. */
export function queued(key, { queue_position: position }) {
  return position ? t(`${key}.at`, { position }) : t(key);
}

/** The words with what is not settled yet in another shade. */
export function drawCanvas(element, { text, settled }) {
  const parts = [];
  let at = 0;
  for (const [from, to] of settled) {
    if (from > at) parts.push(h("span", { class: "unsettled" }, text.slice(at, from)));
    parts.push(text.slice(from, to));
    at = to;
  }
  if (at < text.length) parts.push(h("span", { class: "unsettled" }, text.slice(at)));
  element.replaceChildren(...parts);
}
