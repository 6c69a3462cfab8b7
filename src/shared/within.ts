// Waits for something, and for no longer than a time.

/**
 * @param work is not ended by the time; a later failure is ignored.
 * @param onLate called when the time is over: its value, or what it throws, is the result.
 */
export async function within<T, Late>(ms: number, work: PromiseLike<T>, onLate: () => Late): Promise<T | Late> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  }).then(onLate);
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer); // otherwise it would keep the process alive
  }
}
