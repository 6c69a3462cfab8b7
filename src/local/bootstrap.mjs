// Runs before each npm script, on whatever Node the machine has: makes sure that the dependencies are installed, Node 24
// among them. What it needs itself is loaded after the check, because an old Node could not even read it.
const [major] = process.versions.node.split('.').map(Number);
if (major < 18) {
  console.error(
    `This is Node ${process.versions.node}; 18 or later is needed to install the rest: https://nodejs.org/en/download`,
  );
  process.exit(1);
}
import('./install-dependencies.mjs')
  .then(({ installDependencies }) => installDependencies())
  .then((problem) => {
    if (problem) console.error(problem);
    process.exitCode = problem ? 1 : 0;
  });
