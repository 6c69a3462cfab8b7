// Asks the person at the terminal a question that is answered with yes or no.
import { createInterface } from 'node:readline/promises';

/** Undefined where nobody is there to answer. @param interrupted Ctrl-C counts as no. */
export function confirmAtTerminal(interrupted: AbortSignal): ((question: string) => Promise<boolean>) | undefined {
  if (!process.stdin.isTTY || !process.stdout.isTTY) return undefined;
  return async (question) => {
    const terminal = createInterface({ input: process.stdin, output: process.stdout });
    // The terminal is in a mode where Ctrl-C is a key.
    terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
    try {
      return /^y(es)?$/i.test((await terminal.question(`\n${question} [y/N] `, { signal: interrupted })).trim());
    } catch {
      return false;
    } finally {
      terminal.close();
    }
  };
}
