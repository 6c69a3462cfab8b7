// Runs containers of deploy/kubernetes as processes of this machine: their command, with their variables and those of the
// image and no others, and their secrets as files. Asks them as the kubelet does.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../src/local/free-port.ts';
import { follow, type Run } from './commands.ts';
import { type Any, podOf, type Resource } from './kustomize.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const dockerfile = readFileSync(path.join(ROOT, 'Dockerfile'), 'utf8');
/** One line, names and values without spaces. */
const ofImage = Object.fromEntries(
  /^ENV (.*)$/m
    .exec(dockerfile)?.[1]
    ?.split(' ')
    .map((pair) => pair.split(/=(.*)/s)) ?? [],
);

/** What differs from a cluster: where secrets are mounted, and addresses that other tests of this machine do not use. */
export interface Place {
  /** Has a folder for each Secret. */
  secrets: string;
  /** Besides the container's own. */
  variables: Record<string, string>;
}

/** @param command instead of the container's own, as `kubectl exec` takes it. */
export function runContainer(
  resource: Resource,
  name: string,
  { secrets, variables }: Place,
  command?: readonly string[],
): Run {
  const { spec } = podOf(resource);
  const container = [...(spec.initContainers ?? []), ...spec.containers].find((one: Any) => one.name === name);
  const own = container.env.map(({ name, value }: Any) => [name, placed(value, container, spec, secrets)]);
  // No folder that it might write to is there.
  const env = { PATH: process.env.PATH, HOME: '/nonexistent', TMPDIR: '/nonexistent', ...ofImage };
  const [program, ...args] = command ?? container.command;
  return follow(
    spawn(program === 'node' ? process.execPath : program, args, {
      cwd: ROOT,
      env: { ...env, ...Object.fromEntries(own), ...variables },
    }),
  );
}

/** The file that a path of the container is here. */
function placed(value: string, { volumeMounts }: Any, { volumes }: Any, secrets: string): string {
  const mount = volumeMounts.find(({ mountPath }: Any) => value.startsWith(`${mountPath}/`));
  if (!mount) return value;
  const { secret } = volumes.find(({ name }: Any) => name === mount.name);
  return path.join(secrets, secret.secretName, value.slice(mount.mountPath.length));
}

type Probe = 'startupProbe' | 'livenessProbe' | 'readinessProbe';

export interface Pod extends Run {
  url: string;
  /** Asks once, for as long as the probe allows. */
  probe(which: Probe): Promise<boolean>;
  /** Asks as often as the probe says, until it succeeds. @throws after `triesMax`. */
  untilProbed(which: Probe, triesMax?: number): Promise<void>;
  /** SIGTERM, as the kubelet sends it. @returns exit code and time; @throws after the grace period. */
  stop(): Promise<{ code: number | null; tookMs: number }>;
}

/** A pod of a Deployment, on a port of its own. */
export async function startPod(resource: Resource, { secrets, variables }: Place): Promise<Pod> {
  const { spec } = podOf(resource);
  const [container] = spec.containers;
  const port = await freePort();
  const { name: variable } = container.env.find(({ name }: Any) => ['PORT', 'HEALTH_PORT'].includes(name));
  const run = runContainer(resource, container.name, {
    secrets,
    variables: { ...variables, [variable]: String(port) },
  });
  const url = `http://127.0.0.1:${port}`;
  const probe = async (which: Probe) => {
    const { httpGet, timeoutSeconds } = container[which];
    const answer = await fetch(url + httpGet.path, {
      headers: { connection: 'close' },
      signal: AbortSignal.timeout(timeoutSeconds * 1000),
    }).catch(() => undefined);
    await answer?.body?.cancel();
    return answer !== undefined && answer.status >= 200 && answer.status < 400;
  };
  const said = () => `It printed:\n${run.output.out.slice(-2000)}${run.output.err}`;
  return {
    ...run,
    url,
    probe,
    async untilProbed(which, triesMax = container[which].failureThreshold) {
      for (let tries = 1; !(await probe(which)); tries += 1) {
        if (run.child.exitCode !== null || tries === triesMax) throw new Error(`${which} of ${url} failed. ${said()}`);
        await delay(container[which].periodSeconds * 1000);
      }
    },
    async stop() {
      const exited = once(run.child, 'exit', {
        signal: AbortSignal.timeout(spec.terminationGracePeriodSeconds * 1000),
      });
      const askedAtMs = performance.now();
      run.child.kill('SIGTERM');
      const [code] = await exited;
      return { code, tookMs: performance.now() - askedAtMs };
    },
  };
}
