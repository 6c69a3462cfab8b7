// Ctrl-C: everything that was started ends at once, and then this process.
import { constants } from 'node:os';

/** @returns what takes the handlers away again. */
export function interruptible(end: () => Promise<void>): () => void {
  let ending = false;
  const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map((signal) => {
    const handler = () => {
      if (ending) return;
      ending = true;
      console.log('\nStopping everything');
      void end().finally(() => process.exit(128 + constants.signals[signal]));
    };
    process.on(signal, handler);
    return [signal, handler] as const;
  });
  return () => {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  };
}
