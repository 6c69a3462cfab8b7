// The section of CHANGELOG.md that belongs to a version: `## 0.1.0, 2026-11-30`, the newest first.
// It becomes the message of the tag.

/** The earth's first time zone: there it is tomorrow already. */
const FIRST_ZONE_MS = 14 * 3_600_000;

export interface Notes {
  /** `0.1.0, 2026-11-30` */
  title: string;
  text: string;
}

interface Section {
  title: string;
  text: string;
}

/** A sentence where the newest section is not that of the version, with the day of the release. */
export function changelogProblem(changelog: string, version: string, nowMs = Date.now()): string | undefined {
  const wanted = `"## ${version}, ${dayOf(nowMs)}"`;
  const newest = newestSection(changelog);
  if (newest === undefined || !newest.title.startsWith(`${version}, `))
    return `the newest section of CHANGELOG.md is "${newest?.title ?? ''}", not that of ${version}: begin it with ${wanted}`;
  const day = newest.title.slice(`${version}, `.length);
  if (!isDay(day)) return `CHANGELOG.md says "${newest.title}": write the day of the release, ${wanted}`;
  if (day > dayOf(nowMs + FIRST_ZONE_MS))
    return `CHANGELOG.md says "${newest.title}", a day in the future: write ${wanted}`;
  if (newest.text === '') return `the section "${newest.title}" of CHANGELOG.md is empty`;
  return undefined;
}

/** Of a changelog that has no problem. */
export function notesOf(changelog: string, version: string): Notes {
  const newest = newestSection(changelog);
  if (newest === undefined) throw new Error(`CHANGELOG.md has no section of ${version}`);
  return newest;
}

function newestSection(changelog: string): Section | undefined {
  const [, newest] = changelog.split(/^## /m);
  if (newest === undefined) return undefined;
  const [title = '', ...lines] = newest.split('\n');
  return { title: title.trim(), text: lines.join('\n').trim() };
}

const dayOf = (timeMs: number) => new Date(timeMs).toISOString().slice(0, 10);

/** 30 February is none. */
function isDay(text: string): boolean {
  const timeMs = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isFinite(timeMs) && dayOf(timeMs) === text;
}
