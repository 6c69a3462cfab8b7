// What a mutant is, and what several of them edit.

export interface Edit {
  file: string;
  find: string;
  put: string;
  /** How often `find` stands there. */
  times?: number;
}

export interface Mutant {
  name: string;
  /** What it does wrong, in the words of the guarantee that it breaks. */
  breaks: string;
  edits: readonly Edit[];
  /** The faults that bring it out. */
  faults: readonly string[];
  /** Any of them will do: which one comes first is a matter of timing. */
  expected: readonly string[];
}

export const edit = (file: string, find: string, put: string, times = 1): Edit => ({ file, find, put, times });

export const APPLY = 'migrations/functions/apply_changes.sql';
export const TABLES = 'migrations/001.do.tables.sql';

/** Hardly disturbs anything; for mutants that traffic alone brings out. */
export const QUIET = ['clock-step'];
