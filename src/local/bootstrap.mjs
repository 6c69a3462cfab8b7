// Runs each npm script, `node src/local/bootstrap.mjs FILE [argument]...`, on any Node that the
// machine has: makes sure that the dependencies are installed, including Node 24, and runs the file
// on it. Its own modules are loaded after the check, because an old Node could not even parse them.
const [major] = process.versions.node.split('.').map(Number);
if (major < 18) {
  console.error(
    `This is Node ${process.versions.node}; 18 or later is required to install the rest: https://nodejs.org/en/download`,
  );
  process.exit(1);
}
import('./run-script.mjs').then(({ runScript }) => runScript());
