// What the last fill wrote, gap by gap: which words are new, which other texts there are, and what stood there before.
import { docOf } from "./editor.js";
import { itemsOf } from "./fill.js";
import { sectionsOf } from "./schema.js";
import { t } from "./texts.js";

/** The runs of new text in a section: [{section, from, to, keys, item, texts, at, odds, label}]. */
export function runsOf(name, pieces, known, fresh) {
  if (!fresh.job) return [];
  const runs = [];
  pieces.forEach((piece, number) => {
    const place = piece.kind === "text" ? known.place(piece.key, piece.text) : undefined;
    if (place?.job_id !== fresh.job) return;
    const last = runs.at(-1);
    if (last && last.until === number) {
      last.keys.push(piece.key);
      last.text += piece.text;
      last.to = piece.to;
      last.until = number + 1;
    } else {
      const at = { from: piece.from, to: piece.to, first: number, until: number + 1 };
      runs.push({ section: name, keys: [piece.key], text: piece.text, ...at });
    }
  });
  return runs.map((run) => described(run, pieces, known, fresh));
}

function described(run, pieces, known, fresh) {
  const itemOf = (piece) => {
    const id = piece.kind === "lock" ? known.place(piece.key, piece.text)?.id : undefined;
    return fresh.locks.find((lock) => lock.section === run.section && lock.fragment_id === id)?.item;
  };
  const before = pieces.slice(0, run.first).map(itemOf).filter((item) => item !== undefined).at(-1) ?? -1;
  const after = pieces.slice(run.until).map(itemOf).find((item) => item !== undefined) ?? Infinity;
  // Between two locks there is one open item.
  const open = fresh.open.find((one) => one.section === run.section && before < one.item && one.item < after);
  const item = open?.item ?? null;
  const offered = fresh.alternatives.find((one) => one.section === run.section && one.item === item);
  const texts = offered?.texts.map((one) => one.text.trim()) ?? [];
  const at = Math.max(0, texts.indexOf(run.text.trim()));
  const odds = oddsOf(offered?.texts[texts.indexOf(run.text.trim())]?.probability);
  const label = `${fresh.job} ${run.section} ${run.keys.join(" ")} ${at} ${texts.length}`;
  return { ...run, item, texts: texts.length, at, odds, label };
}

/**
 * What stood where a job wrote, [{section, item, before}], from the version that it was asked of. A section whose locks are
 * not those of the job was asked for by somebody else, and otherwise than here: it is left out.
 */
export function openOf(job, version, known) {
  const opened = [];
  for (const { name, pieces } of sectionsOf(docOf(version.sections, known.recall(version)))) {
    const items = itemsOf(pieces);
    const idAt = (item) => items[item]?.lock && known.place(items[item].lock.key, items[item].lock.text).id;
    const locks = job.locks.filter((lock) => lock.section === name);
    if (locks.length !== items.filter((item) => item.lock).length) continue;
    if (!locks.every((lock) => idAt(lock.item) === lock.fragment_id)) continue;
    items.forEach(({ open }, item) => open && opened.push({ section: name, item, before: open }));
  }
  return opened;
}

/** A probability in words that promise no more than a curve of some hundred cases can; null without one. */
export function oddsOf(probability) {
  if (probability === undefined) return null;
  if (probability < 0.01) return t("odds.least");
  return probability > 0.99 ? t("odds.most") : t("odds", { percent: Math.round(probability * 100) });
}
