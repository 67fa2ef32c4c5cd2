// What a clinician does to pieces: each is one step of undo.
import { NodeSelection, TextSelection } from "prosemirror-state";
import { newKey } from "./pieces.js";
import { gapOf, lockOf, pieceAt, sectionsOf, textOf } from "./schema.js";
import { splitSentences } from "./sentences.js";

/** The part of a piece that is selected, cut out with keys of its own: {before, inside, after} as nodes. */
function cutOut(pieces, piece, from, to) {
  const start = Math.max(from, piece.from) - piece.from;
  const end = Math.min(to, piece.to) - piece.from;
  if (start <= 0 && end >= piece.text.length) return { before: [], key: piece.key, text: piece.text, after: [] };
  const offsets = [start, end].filter((one) => one > 0 && one < piece.text.length);
  const keys = pieces.cut(piece.key, piece.text, [...new Set(offsets)]);
  const before = start > 0 ? [textOf(piece.text.slice(0, start), keys.shift())] : [];
  const key = keys.shift();
  const after = end < piece.text.length ? [textOf(piece.text.slice(end), keys.shift())] : [];
  return { before, key, text: piece.text.slice(start, end), after };
}

function selected(state) {
  const { from, to, empty } = state.selection;
  const { section, piece } = pieceAt(state.doc, from);
  if (!section) return [];
  if (empty) return piece ? [piece] : [];
  return sectionsOf(state.doc).flatMap((one) => one.pieces.filter((two) => two.from < to && from < two.to));
}

/** Lock what is selected, or the sentence at the caret; unlock where all of it is locked. */
export function toggleLock(pieces) {
  return (state, dispatch) => {
    const chosen = selected(state).filter((piece) => piece.kind !== "gap");
    if (!chosen.length) return false;
    if (!dispatch) return true;
    const { from, to, empty } = state.selection;
    const unlocks = chosen.every((piece) => piece.locked);
    const tr = state.tr;
    for (const piece of [...chosen].reverse()) {
      if (unlocks) {
        pieces.typed.delete(piece.key);
        tr.replaceWith(piece.from, piece.to, piece.text ? textOf(piece.text, piece.key) : []);
      } else if (!piece.locked) {
        const cut = empty
          ? { before: [], key: piece.key, text: piece.text, after: [] }
          : cutOut(pieces, piece, from, to);
        if (cut.text) tr.replaceWith(piece.from, piece.to, [...cut.before, ...locks(pieces, cut), ...cut.after]);
      }
    }
    const at = unlocks ? chosen[0].from : tr.mapping.map(chosen.at(-1).to, -1);
    tr.setSelection(TextSelection.near(tr.doc.resolve(Math.min(at, tr.doc.content.size)), unlocks ? 1 : -1));
    dispatch(tr.setMeta("save", "now").scrollIntoView());
    return true;
  };
}

/** A text as locked pieces, one a sentence; a stored one stays as it was stored. */
function locks(pieces, { key, text }) {
  if (pieces.place(key, text)) return [lockOf(text, key)];
  return splitSentences(text).map((sentence, number) => lockOf(sentence, number ? newKey() : key));
}

/** Put a gap where the caret is, or in place of what is selected. `focus` says that its hint is typed next. */
export function insertGap(pieces, focus) {
  return (state, dispatch) => {
    const { from, to, empty, $from } = state.selection;
    if ($from.depth === 0 && !(state.selection instanceof NodeSelection)) return false;
    if (!dispatch) return true;
    const gap = gapOf();
    const tr = state.tr;
    const { piece } = pieceAt(state.doc, from);
    if (empty && piece?.kind === "text" && piece.from < from && from < piece.to) {
      const offset = from - piece.from;
      const keys = pieces.cut(piece.key, piece.text, [offset]);
      const parts = [textOf(piece.text.slice(0, offset), keys[0]), gap, textOf(piece.text.slice(offset), keys[1])];
      tr.replaceWith(piece.from, piece.to, parts);
    } else if (empty) tr.insert(from, gap);
    else removed(pieces, state, tr, gap, from, to);
    dispatch(tr.setMeta("hint", focus ? gap.attrs.key : null).setMeta("save", "now").scrollIntoView());
    return true;
  };
}

function removed(pieces, state, tr, gap, from, to) {
  const chosen = selected(state);
  chosen.reverse().forEach((piece, number) => {
    const first = number === chosen.length - 1;
    const cut = piece.kind === "text" ? cutOut(pieces, piece, from, to) : { before: [], after: [] };
    tr.replaceWith(piece.from, piece.to, [...cut.before, ...(first ? [gap] : []), ...cut.after]);
  });
}

/** Remove the sentence at the caret: what is left is a gap, to be filled or to be removed as well. */
export function removeSentence() {
  return (state, dispatch) => {
    const { piece } = pieceAt(state.doc, state.selection.from);
    if (!piece) return false;
    if (dispatch) {
      const gap = piece.kind === "gap" ? [] : gapOf();
      const tr = state.tr.replaceWith(piece.from, piece.to, gap);
      const after = Math.min(piece.from + (piece.kind === "gap" ? 0 : 1), tr.doc.content.size);
      tr.setSelection(TextSelection.near(tr.doc.resolve(after), 1));
      dispatch(tr.setMeta("save", "now").scrollIntoView());
    }
    return true;
  };
}

/** Delete and Backspace on whole sentences leave a gap; on less they delete as anywhere. */
export function deleteSelection(pieces) {
  return (state, dispatch) => {
    const { from, to, empty } = state.selection;
    if (empty) return false;
    const whole = selected(state).some((piece) => piece.kind !== "gap" && from <= piece.from && piece.to <= to);
    return whole && insertGap(pieces, false)(state, dispatch);
  };
}

/** The caret to the beginning of the next (1) or previous (-1) piece. */
export function step(direction) {
  return (state, dispatch) => {
    const all = sectionsOf(state.doc).flatMap((section) => section.pieces);
    const { from } = state.selection;
    const next = direction > 0 ? all.find((one) => one.from > from) : all.findLast((one) => one.from < from);
    if (!next) return false;
    if (dispatch) dispatch(goTo(state.tr, next));
    return true;
  };
}

export function goTo(tr, piece) {
  const selection =
    piece.kind === "text" ? TextSelection.create(tr.doc, piece.from) : NodeSelection.create(tr.doc, piece.from);
  return tr.setSelection(selection).scrollIntoView();
}

/**
 * Pieces that were typed and that the caret has left become locked, a sentence each. Null where there are none. At the
 * border of two pieces somebody who types (`typing`) is in the first one, somebody who moved there in the second.
 */
export function settle(pieces, state, { everything = false, typing = false } = {}) {
  const { from, to } = state.selection;
  const tr = state.tr;
  for (const section of sectionsOf(state.doc).toReversed()) {
    for (const piece of [...section.pieces].reverse()) {
      const next = section.pieces.some((one) => one.from === piece.to);
      const here = !everything && piece.from <= to && (from < piece.to || (from === piece.to && (typing || !next)));
      if (piece.kind !== "text" || here || !piece.text.trim() || !pieces.typed.has(piece.key)) continue;
      if (pieces.origin(piece.key, piece.text) !== "clinician") continue;
      tr.replaceWith(piece.from, piece.to, locks(pieces, piece));
      pieces.typed.delete(piece.key);
    }
  }
  return tr.docChanged ? tr : null;
}
