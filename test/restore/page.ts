// docs/restore.md as a person follows it: section by section, the commands of each step.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const PAGE = fileURLToPath(new URL('../../docs/restore.md', import.meta.url));

export interface Block {
  /** Of the numbered step that it belongs to; 0 before the first. */
  step: number;
  /** On the machine of the database, as the account of PostgreSQL. */
  isOfPostgres: boolean;
  commands: string;
}

export interface Section {
  title: string;
  blocks: Block[];
}

/** A step begins, or a block of commands does. */
const PART = /^(?<number>\d+)\. |^(?<indent> *)```sh(?<account> postgres)?\n(?<text>.*?)^\k<indent>```$/gms;

export function readSections(): Section[] {
  const [, ...sections] = readFileSync(PAGE, 'utf8').split(/^## /m);
  return sections.map((text) => ({ title: text.slice(0, text.indexOf('\n')), blocks: blocksOf(text) }));
}

export function sectionOf(title: string): Section {
  const section = readSections().find((one) => one.title === title);
  if (!section) throw new Error(`docs/restore.md has no section "${title}"`);
  return section;
}

function blocksOf(text: string): Block[] {
  let step = 0;
  const blocks: Block[] = [];
  for (const { groups = {} } of text.matchAll(PART)) {
    const { number, indent = '', account, text: commands = '' } = groups;
    if (number !== undefined) step = Number(number);
    else blocks.push({ step, isOfPostgres: account !== undefined, commands: withoutIndent(commands, indent) });
  }
  return blocks;
}

const withoutIndent = (text: string, indent: string) =>
  text
    .split('\n')
    .map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line))
    .join('\n');
