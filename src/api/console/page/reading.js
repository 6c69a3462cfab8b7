// Reads of one part of the page, of which only the last counts.
import { show } from './show.js';

/**
 * A failure is shown where `problemId` says.
 * @param {string} problemId
 * @returns {(work: (isLast: () => boolean) => Promise<void>) => Promise<void>}
 */
export function createReading(problemId) {
  let last = 0;
  return async (work) => {
    last += 1;
    const mine = last;
    const isLast = () => mine === last;
    show(problemId, '');
    try {
      await work(isLast);
    } catch (error) {
      if (isLast()) show(problemId, error instanceof Error ? error.message : String(error));
    }
  };
}
