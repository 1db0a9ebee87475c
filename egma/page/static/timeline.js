"use strict";
// Time of a recording: where it begins and ends, what is said when. Nothing here needs a page.
const egmaTimeline = (() => {
  const timed = (sentences) => sentences.filter((one) => one.start !== null);

  const begin = ({ fixations, sentences }) => Math.min(fixations.start[0], ...timed(sentences).map((one) => one.start));

  function end({ fixations: { start, duration }, sentences }) {
    return Math.max(start.at(-1) + duration.at(-1), ...timed(sentences).map((one) => one.end));
  }

  // The sentence of a moment: the one that is being said, else the last one that was, else the first to come; null: untimed.
  function sentenceAt(sentences, moment) {
    const speaking = sentences.findIndex(({ start, end: ended }) => start !== null && start <= moment && moment < ended);
    if (speaking >= 0) return { place: speaking, speaking: true };
    const starts = timed(sentences).map((one) => one.start);
    const begun = starts.filter((start) => start <= moment);
    const start = begun.length ? Math.max(...begun) : Math.min(...starts);
    const place = sentences.findIndex((one) => one.start === start);
    return { place: place < 0 ? null : place, speaking: false };
  }

  // Whether a fixation counts in a window [from, to] of seconds: a part of it lies there.
  const counts = (start, duration, window) => Boolean(window) && start < window[1] && start + duration > window[0];

  return { begin, end, sentenceAt, counts };
})();
