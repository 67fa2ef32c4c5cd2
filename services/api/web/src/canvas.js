// Where in a canvas the model's words for each gap stand.
//
// A canvas is the whole text that is being written, with the locked text in it. The words of a gap are what stands
// between the locks around it. Only for showing: what the report takes is spliced by the server.

const HEAD = (name) => `${name[0].toUpperCase()}${name.slice(1)}:`;

/**
 * `sections`: [{name, items: [{lock: text} | {open: key}]}] as the model writes them. Returns key -> {text, settled},
 * `settled` being which characters are accepted; keys whose place was not found are left out.
 */
export function gapTexts(canvas, sections) {
  const found = new Map();
  const { text } = canvas;
  const accepted = utf16Spans(text, canvas.accepted);
  let at = 0;
  sections.forEach(({ name, items }, number) => {
    const head = text.indexOf(HEAD(name), at);
    if (head >= 0) at = head + HEAD(name).length;
    const next = sections.slice(number + 1).map((one) => text.indexOf(HEAD(one.name), at)).find((one) => one >= 0);
    const end = next ?? text.length;
    items.forEach((item, place) => {
      if (item.lock !== undefined) {
        const lock = text.indexOf(item.lock.trim(), at);
        if (lock >= 0 && lock <= end) at = lock + item.lock.trim().length;
        return;
      }
      const following = items.slice(place + 1).find((one) => one.lock !== undefined && one.lock.trim());
      const stop = following ? text.indexOf(following.lock.trim(), at) : end;
      if (stop < 0 || stop > end) return;
      found.set(item.open, { text: text.slice(at, stop), settled: within(accepted, at, stop) });
      at = stop;
    });
    at = Math.max(at, end === text.length ? at : end);
  });
  return found;
}

/** A whole canvas as {text, settled}. */
export function settledOf({ text, accepted }) {
  return { text, settled: utf16Spans(text, accepted) };
}

function utf16Spans(text, spans) {
  const offsets = [0];
  for (const character of text) offsets.push(offsets.at(-1) + character.length);
  return spans.map(([start, end]) => [offsets[start] ?? text.length, offsets[end] ?? text.length]);
}

function within(spans, start, stop) {
  return spans
    .map(([from, to]) => [Math.max(from, start) - start, Math.min(to, stop) - start])
    .filter(([from, to]) => from < to);
}
