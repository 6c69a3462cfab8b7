// The container image of a release: built where a Docker engine answers, and looked at: its labels
// name this version and commit, and its command runs without network on a read-only file system.
import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';

const ENGINE_TIMEOUT_MS = 15_000;
const BUILD_TIMEOUT_MS = 1_200_000;
const RUN_TIMEOUT_MS = 60_000;
const OUTPUT_BYTES_MAX = 50_000_000;

/** Why no image can be built here; undefined where one can. */
export function engineProblem(): string | undefined {
  const command = ['version', '--format', '{{.Server.Version}}'];
  const { status, stderr, error } = spawnSync('docker', command, { encoding: 'utf8', timeout: ENGINE_TIMEOUT_MS });
  if (status === 0) return undefined;
  return (error?.message ?? stderr).trim().split('\n')[0];
}

/** @returns what was made, in a sentence. */
export async function makeImage(root: string, name: string, version: string, commit: string): Promise<string> {
  const docker = async (timeout: number, ...command: string[]) =>
    (await promisify(execFile)('docker', command, { cwd: root, timeout, maxBuffer: OUTPUT_BYTES_MAX })).stdout.trim();
  const values = { VERSION: version, REVISION: commit };
  const given = Object.entries(values).flatMap(([argument, value]) => ['--build-arg', `${argument}=${value}`]);
  await docker(BUILD_TIMEOUT_MS, 'build', ...given, '--tag', name, '.');

  const labels = JSON.parse(
    await docker(RUN_TIMEOUT_MS, 'image', 'inspect', '--format', '{{json .Config.Labels}}', name),
  );
  for (const [label, value] of Object.entries({ version, revision: commit })) {
    const said = labels?.[`org.opencontainers.image.${label}`];
    if (said !== value) throw new Error(`the label ${label} of the image ${name} is "${said}", not ${value}`);
  }
  const isolated = ['run', '--rm', '--network', 'none', '--read-only', name];
  const said = await docker(RUN_TIMEOUT_MS, ...isolated, 'node', 'src/cli/highload-balance.mjs', '--version');
  if (said !== version) throw new Error(`highload-balance --version of the image says "${said}", not ${version}`);
  return `${name}, of ${commit.slice(0, 9)}`;
}
