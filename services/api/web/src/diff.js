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
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const middle = between(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (text) => (text ? [{ kind: "same", text }] : []);
  const head = same(a.slice(0, start).join(""));
  const tail = same(a.slice(a.length - end).join(""));
  return joined([...head, ...middle, ...tail]);
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

function joined(steps) {
  const result = [];
  for (const step of steps) {
    if (!step.text) continue;
    if (result.at(-1)?.kind === step.kind) result.at(-1).text += step.text;
    else result.push({ ...step });
  }
  return result;
}
