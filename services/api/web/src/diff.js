// The words that differ between two texts: the longest common subsequence, over words and the blanks between them.

// Two reports of some thousand words each would take seconds; beyond this the middle is shown as replaced.
const MOST_CELLS = 4_000_000;

export function words(text) {
  return text.match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) ?? [];
}

/** [{kind: "same" | "gone" | "new", text}] that turns `before` into `after`; neighbours of one kind are joined. */
export function diffWords(before, after) {
  const a = words(before);
  const b = words(after);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  // Only where it has to be: a sentence that was added before the last full stop would end after it.
  const isLong = (a.length - start) * (b.length - start) > MOST_CELLS;
  while (isLong && end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const middle = between(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (text) => (text ? [{ kind: "same", text }] : []);
  const head = same(a.slice(0, start).join(""));
  const tail = same(a.slice(a.length - end).join(""));
  return readable(joined([...head, ...middle, ...tail]));
}

function between(a, b) {
  if (a.length * b.length > MOST_CELLS) return [gone(a.join("")), fresh(b.join(""))];
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      lengths[here] = a[i] === b[j] ? lengths[here + width + 1] + 1 : Math.max(lengths[here + width], lengths[here + 1]);
    }
  }
  const steps = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      steps.push({ kind: "same", text: a[i] });
      i += 1;
      j += 1;
    } else if (j >= b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      steps.push(gone(a[i]));
      i += 1;
    } else {
      steps.push(fresh(b[j]));
      j += 1;
    }
  }
  return steps;
}

const gone = (text) => ({ kind: "gone", text });
const fresh = (text) => ({ kind: "new", text });

/** One replaced stretch in place of two with hardly anything between them: nobody reads words that alternate. */
function readable(steps) {
  const parts = [];
  for (const { kind, text } of steps) {
    if (kind !== "same" && !parts.at(-1)?.isChange) parts.push({ isChange: true, gone: "", new: "" });
    if (kind === "same") parts.push({ isChange: false, text });
    else parts.at(-1)[kind] += text;
  }
  const read = [];
  for (const part of parts) {
    read.push(part);
    while (read.length > 2 && isBroken(...read.slice(-3))) {
      const [one, { text }, other] = read.splice(-3);
      read.push({ isChange: true, gone: one.gone + text + other.gone, new: one.new + text + other.new });
    }
  }
  return read
    .flatMap((part) => (part.isChange ? [gone(part.gone), fresh(part.new)] : [{ kind: "same", text: part.text }]))
    .filter(({ text }) => text);
}

function isBroken(one, island, other) {
  const replaces = (change) => change.isChange && change.gone.trim() && change.new.trim();
  const size = (change) => Math.max(change.gone.length, change.new.length);
  if (island.isChange || !replaces(one) || !replaces(other)) return false;
  return !island.text.trim() || island.text.length <= Math.min(size(one), size(other));
}

function joined(steps) {
  const result = [];
  for (const step of steps) {
    if (!step.text) continue;
    if (result.at(-1)?.kind === step.kind) result.at(-1).text += step.text;
    else result.push({ ...step });
  }
  return result;
}
