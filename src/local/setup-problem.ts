// A problem that its reader can solve: one sentence saying what is wrong and what to change.
// Commands print its message alone; anything else that is thrown is a defect and keeps its stack trace.
export class SetupProblem extends Error {
  override name = 'SetupProblem';
}
