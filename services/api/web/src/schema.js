// The document of the editor: sections of pieces. A locked piece is one character to the editor: it can be stepped
// over, selected and moved across, and nothing that is typed can change it.
import { Schema } from "prosemirror-model";
import { newKey } from "./pieces.js";

export const schema = new Schema({
  nodes: {
    doc: { content: "section+" },
    section: {
      attrs: { name: { default: "findings" } },
      content: "inline*",
      isolating: true,
      defining: true,
      whitespace: "pre",
      toDOM: (node) => ["section", { "data-section": node.attrs.name }, 0],
    },
    text: { group: "inline" },
    lock: {
      attrs: { key: {}, text: {} },
      group: "inline",
      inline: true,
      atom: true,
      selectable: true,
      draggable: false,
      leafText: (node) => node.attrs.text,
      toDOM: (node) => ["span", { class: "lock", "data-key": node.attrs.key }, node.attrs.text],
    },
    gap: {
      attrs: { key: {}, hint: { default: "" } },
      group: "inline",
      inline: true,
      atom: true,
      selectable: true,
      draggable: false,
      leafText: () => "",
      toDOM: (node) => ["span", { class: "gap", "data-key": node.attrs.key }],
    },
  },
  marks: {
    piece: {
      attrs: { key: {} },
      inclusive: true,
      toDOM: (mark) => ["span", { class: "piece", "data-key": mark.attrs.key }, 0],
    },
  },
});

export function textOf(text, key) {
  return schema.text(text, [schema.marks.piece.create({ key })]);
}

export function lockOf(text, key) {
  return schema.nodes.lock.create({ key, text });
}

export function gapOf(hint = "", key = newKey()) {
  return schema.nodes.gap.create({ key, hint });
}

/** The pieces of a section in order: {kind: "text" | "lock" | "gap", key, text, locked, hint, from, to}. */
export function piecesOf(section, start) {
  const pieces = [];
  section.forEach((node, offset) => {
    const from = start + offset;
    const to = from + node.nodeSize;
    if (node.isText) {
      const key = node.marks.find((mark) => mark.type === schema.marks.piece)?.attrs.key;
      const last = pieces.at(-1);
      if (last?.kind === "text" && last.key === key) {
        last.text += node.text;
        last.to = to;
      } else pieces.push({ kind: "text", key, text: node.text, locked: false, from, to });
    } else if (node.type === schema.nodes.lock) {
      pieces.push({ kind: "lock", key: node.attrs.key, text: node.attrs.text, locked: true, from, to });
    } else pieces.push({ kind: "gap", key: node.attrs.key, text: "", hint: node.attrs.hint, from, to });
  });
  return pieces;
}

/** [{name, node, start, pieces}] of the whole document; `start` is where the section's content begins. */
export function sectionsOf(doc) {
  if (!cut.has(doc)) cut.set(doc, sectionsIn(doc));
  return cut.get(doc);
}

// A key asks a dozen times for the sections of one document, which never changes.
const cut = new WeakMap();

function sectionsIn(doc) {
  const sections = [];
  doc.forEach((node, offset) => {
    sections.push({ name: node.attrs.name, node, start: offset + 1, pieces: piecesOf(node, offset + 1) });
  });
  return sections;
}

export function pieceAt(doc, position) {
  for (const section of sectionsOf(doc)) {
    if (position < section.start || position > section.start + section.node.content.size) continue;
    const inside = section.pieces.find((one) => one.from <= position && position < one.to);
    return { section, piece: inside ?? section.pieces.findLast((one) => one.to === position) };
  }
  return {};
}
