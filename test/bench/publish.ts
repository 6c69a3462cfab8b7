// Results to a folder: the raw figures, the charts and the page.
import { fileURLToPath } from 'node:url';
import { installDependencies, isInstalled } from '../../src/local/install-dependencies.mjs';
import { drawCharts } from './charts.ts';
import { writePage } from './report.ts';
import { chartsIn, type Results, writeResults } from './results.ts';

const BENCH_FOLDER = fileURLToPath(new URL('.', import.meta.url));

/** autocannon and vega, when they are first needed. @throws when npm fails. */
export async function installBenchDependencies(): Promise<void> {
  if (isInstalled(BENCH_FOLDER)) return;
  const problem = await installDependencies(BENCH_FOLDER);
  if (problem) throw new Error(problem);
}

export async function publish(folder: string, results: Results): Promise<void> {
  const written = writeResults(folder, results); // rounded: a page that is made of the file again is equal
  await writePage(folder, written, await drawCharts(written, chartsIn(folder)));
}
