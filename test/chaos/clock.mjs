// Loaded into a process with --import: shifts what Date says by what the parent sends, as a step of the wall clock would.
// Not covered: monotonic time (performance.now, timers), which no step moves, and the clocks of PostgreSQL and RabbitMQ.
const RealDate = Date;
let shiftMs = 0;

globalThis.Date = class extends RealDate {
  constructor(...parameters) {
    if (parameters.length === 0) super(RealDate.now() + shiftMs);
    else super(...parameters);
  }

  static now() {
    return RealDate.now() + shiftMs;
  }
};

process.on('message', (message) => {
  if (typeof message?.clockShiftMs === 'number') shiftMs = message.clockShiftMs;
});
