// The cut into sentences, as inlay_core/domain/text.py makes it: joined again, the pieces are the text exactly.

const END = /[.!?]+["'\u2019\u201d)\]]*\s+|[^\S\r\n]*[\r\n]\s*/gu;
const ABBREVIATION = /(?:^|[\s([])(?:approx|vs|dr|prof|mr|mrs|ms|no|fig|e\.g|i\.e|cf|ca|resp|st)\.\s+$/iu;

/** Whether what follows this text is another sentence. */
export function endsSentence(text) {
  return /(?:[.!?]["'\u2019\u201d)\]]*\s+|[\r\n]\s*)$/u.test(text) && !ABBREVIATION.test(text);
}

export function splitSentences(text) {
  const pieces = [];
  let start = 0;
  for (const end of text.matchAll(END)) {
    const after = end.index + end[0].length;
    const piece = text.slice(start, after);
    const breaksLine = /[\r\n]/.test(end[0]);
    if (!piece.trim() || (!breaksLine && ABBREVIATION.test(piece))) continue;
    pieces.push(piece);
    start = after;
  }
  if (start < text.length) pieces.push(text.slice(start));
  return pieces;
}
