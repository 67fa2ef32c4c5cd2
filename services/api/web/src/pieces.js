// What the editor knows about each piece of text, and how a section is told to the server.
//
// A piece has a key in the document; where its words come from stands here. A piece whose words are stored already is
// named by id (with the version or the characters, where it was cut or brought back), and its text stays in the browser.

import { endsSentence } from "./sentences.js";

/** Code points of `text` before UTF-16 offset `at`: what the API counts. */
function codePoints(text, at) {
  return [...text.slice(0, at)].length;
}

/** UTF-16 offset of code point `at`. */
export function utf16(text, at) {
  return [...text].slice(0, at).join("").length;
}

let keys = 0;

export function newKey() {
  keys += 1;
  return `k${keys}`;
}

export class Pieces {
  /** key -> where its words came from, the newest place first: [{id, version, text, from, to, origin, ...}]. */
  #known = new Map();
  /** Section name -> the section in the newest version that we know, {name, fragments, gaps}. */
  #stored = new Map();
  /** Keys of pieces that were typed here and not yet locked. */
  typed = new Set();
  version = 0;

  /** Take in a version of the report; every fragment gets the key that it had, or a new one. */
  take(report) {
    const byId = new Map();
    for (const [key, places] of this.#known) if (!byId.has(places[0].id)) byId.set(places[0].id, key);
    this.version = report.version;
    this.#stored = new Map(report.sections.map((section) => [section.name, section]));
    const keyed = new Map();
    for (const section of report.sections) {
      for (const fragment of section.fragments) {
        const known = byId.get(fragment.id);
        const same = known !== undefined && this.#known.get(known)[0].text === fragment.text;
        const key = same ? known : newKey();
        this.#remember(key, fragment, report.version);
        keyed.set(fragment.id, key);
      }
    }
    return keyed;
  }

  #remember(key, fragment, version) {
    const place = { ...fragment, version, from: 0, to: fragment.text.length };
    const others = (this.#known.get(key) ?? []).filter((one) => one.id !== place.id || one.text !== place.text);
    this.#known.set(key, [place, ...others]);
  }

  /** Keys for the fragments of an earlier version, by id, so that its words can be brought back. Nothing else changes. */
  recall(report) {
    const fragments = report.sections.flatMap((section) => section.fragments);
    return new Map(
      fragments.map((fragment) => {
        const key = newKey();
        this.#remember(key, fragment, report.version);
        return [fragment.id, key];
      }),
    );
  }

  /** Where these words of the piece come from; undefined for words that are nowhere stored yet. */
  place(key, text) {
    return this.#known.get(key)?.find((place) => place.text.slice(place.from, place.to) === text);
  }

  /** How much of the text is a whole stored sentence of this piece, with something else typed after it; 0 for none. */
  stem(key, text) {
    if (this.place(key, text)) return 0;
    const stored = (this.#known.get(key) ?? []).map((place) => place.text.slice(place.from, place.to));
    return stored.find((one) => text.startsWith(one) && endsSentence(one))?.length ?? 0;
  }

  /** Who wrote it: what is nowhere stored was typed here. */
  origin(key, text) {
    return this.place(key, text)?.origin ?? "clinician";
  }

  /** Keys for a piece that is cut at these UTF-16 offsets of its text. */
  cut(key, text, offsets) {
    const place = this.place(key, text);
    const ends = [0, ...offsets, text.length];
    return ends.slice(1).map((end, number) => {
      const fresh = newKey();
      const part = place && { ...place, from: place.from + ends[number], to: place.from + end };
      if (part) this.#known.set(fresh, [part]);
      return fresh;
    });
  }

  #fragments(name) {
    return this.#stored.get(name)?.fragments ?? [];
  }

  /** The edit of a section for the API, from its pieces in order: see schema.js. */
  edit(name, all) {
    const pieces = all.filter((piece) => piece.kind !== "gap");
    const stored = new Map(this.#fragments(name).map((fragment) => [fragment.id, fragment]));
    const named = new Map();
    const fragments = pieces.map(({ key, text, locked }) => {
      const place = this.place(key, text);
      return place ? this.#kept(place, locked, stored, named) ?? { text, locked } : { text, locked };
    });
    pieces.forEach(({ key, text }, number) => {
      // A sentence that was changed keeps its id, unless another piece stands for it.
      const id = this.#known.get(key)?.[0].id;
      if (fragments[number].id === undefined && stored.has(id) && !named.has(id)) {
        named.set(id, []);
        fragments[number] = { id, text, locked: fragments[number].locked };
      }
    });
    const stays = new Set(fragments.filter((one) => one.locked && isWhole(one)).map((one) => one.id));
    const unlocked = [...stored.values()].filter((one) => one.locked && !stays.has(one.id)).map((one) => one.id);
    return { name, fragments, ...(unlocked.length ? { unlocked } : {}), gaps: gapsOf(all) };
  }

  #kept(place, locked, stored, named) {
    const current = stored.get(place.id)?.text === place.text;
    const label = current ? place.id : `${place.id} ${place.version}`;
    const taken = named.get(label) ?? [];
    if (taken.some(([from, to]) => place.from < to && from < place.to)) return null;
    const whole = place.from === 0 && place.to === place.text.length;
    if (whole && taken.length) return null;
    named.set(label, [...taken, [place.from, place.to]]);
    named.set(place.id, named.get(place.id) ?? []);
    const edit = { id: place.id, locked };
    if (!current) edit.version = place.version;
    if (!whole) edit.span = [codePoints(place.text, place.from), codePoints(place.text, place.to)];
    return edit;
  }

  /**
   * Take in the answer to `edit`: the server's fragments stand for our pieces, one for one. Returns false where a text
   * came back other than it is here, which must never be.
   */
  saved(sent, report) {
    this.version = report.version;
    this.#stored = new Map(report.sections.map((section) => [section.name, section]));
    return sent.every(({ name, pieces: all }) => {
      const pieces = all.filter((piece) => piece.kind !== "gap");
      const fragments = this.#fragments(name);
      if (fragments.length !== pieces.length) return false;
      return pieces.every((piece, number) => {
        this.#remember(piece.key, fragments[number], report.version);
        return fragments[number].text === piece.text;
      });
    });
  }

  /** Whether the stored section is what these pieces are: nothing to save. */
  isStored(name, all) {
    const pieces = all.filter((piece) => piece.kind !== "gap");
    // A fragment without text has nothing to show; it goes with the next change.
    const { fragments, gaps } = shownOf(this.#stored.get(name));
    if (fragments.length !== pieces.length || !sameGaps(gaps, gapsOf(all))) return false;
    return pieces.every(({ key, text, locked }, number) => {
      const fragment = fragments[number];
      return fragment.text === text && fragment.locked === locked && this.place(key, text)?.id === fragment.id;
    });
  }
}

/** Of a stored section what is shown: fragments without text are left out, and gaps count the others. */
export function shownOf(section) {
  const { fragments = [], gaps = [] } = section ?? {};
  const isShown = (fragment) => fragment.text || fragment.locked;
  const placed = gaps.map(({ at, hint }) => ({ at: fragments.slice(0, at).filter(isShown).length, hint }));
  return { fragments: fragments.filter(isShown), gaps: placed };
}

/** The gaps among the pieces of a section, each by how many of the others stand before it. */
function gapsOf(pieces) {
  const gaps = [];
  let at = 0;
  for (const piece of pieces) {
    if (piece.kind === "gap") gaps.push({ at, hint: piece.hint });
    else at += 1;
  }
  return gaps;
}

function sameGaps(one, other) {
  return one.length === other.length && one.every(({ at, hint }, number) => at === other[number].at && hint === other[number].hint);
}

function isWhole(edit) {
  return edit.id !== undefined && edit.text === undefined && edit.version === undefined && edit.span === undefined;
}
