// Asks the person at the terminal a yes-or-no question.
import { createInterface } from 'node:readline/promises';

/** @param enter what Enter alone means. */
export type Confirm = (question: string, enter: 'yes' | 'no') => Promise<boolean>;

/**
 * Undefined if there is no terminal.
 * @param interrupted Ctrl-C counts as no, and so does Ctrl-D. @param whenWritten waits for the lines before the question.
 */
export function confirmAtTerminal(interrupted: AbortSignal, whenWritten: () => Promise<unknown>): Confirm | undefined {
  if (!process.stdin.isTTY || !process.stdout.isTTY) return undefined;
  return async (question, enter) => {
    await whenWritten();
    const terminal = createInterface({ input: process.stdin, output: process.stdout });
    // The terminal is in a mode where Ctrl-C is a key.
    terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
    const left = new Promise<string>((resolve) => terminal.once('close', () => resolve('no')));
    const choices = enter === 'yes' ? '[Y/n]' : '[y/N]';
    try {
      const asked = terminal.question(`\n${question} ${choices} `, { signal: interrupted });
      const answer = (await Promise.race([asked, left])).trim();
      return answer === '' ? enter === 'yes' : /^y(es)?$/i.test(answer);
    } catch {
      return false;
    } finally {
      terminal.close();
    }
  };
}
