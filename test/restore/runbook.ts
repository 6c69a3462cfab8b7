// A runbook of docs/restore.md, followed step by step with the values of the test.
import { type Block, sectionOf } from './page.ts';
import type { Shell } from './shell.ts';
import { type System, withValues } from './system.ts';

export interface Runbook {
  /** Runs one block of commands. @returns what they printed. */
  next(): Promise<string>;
  /** Runs what comes before this step is over. */
  through(step: number): Promise<string>;
  rest(): Promise<string>;
  /** Runs again all blocks of a step, or the first block that has these words. */
  again(what: number | string): Promise<string>;
}

/** @param shell the operator's. @param values by name, as the page exports them. */
export function openRunbook(
  system: System,
  shell: Shell,
  title: string,
  values: Readonly<Record<string, string>> = {},
): Runbook {
  const { blocks } = sectionOf(title);
  const waiting = [...blocks];
  let ofPostgres: Shell | undefined;
  const shellOf = ({ isOfPostgres }: Block) => {
    if (!isOfPostgres) return shell;
    ofPostgres ??= system.openShellOfPostgres();
    return ofPostgres;
  };
  const run = (block: Block) => shellOf(block).paste(withValues(block.commands, values));
  const next = () => run(waiting.shift() as Block);
  const through = async (step: number) => {
    const printed: string[] = [];
    while (waiting[0] && waiting[0].step <= step) printed.push(await next());
    return printed.join('');
  };
  const again = async (what: number | string) => {
    const ofStep = blocks.filter(({ step }) => step === what);
    const chosen =
      typeof what === 'number' ? ofStep : blocks.filter(({ commands }) => commands.includes(what)).slice(0, 1);
    if (chosen.length === 0) throw new Error(`docs/restore.md has no commands "${what}" in "${title}"`);
    const printed: string[] = [];
    for (const block of chosen) printed.push(await run(block));
    return printed.join('');
  };
  return { next, through, rest: () => through(Number.POSITIVE_INFINITY), again };
}
