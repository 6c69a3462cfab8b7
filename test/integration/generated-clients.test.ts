// Clients that foreign generators make of the OpenAPI document compile, and move amounts above
// 2^31: TypeScript by openapi-typescript and openapi-fetch; Go, where the machine has it, by
// quicktype.
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  onCleanUp,
  send,
  startApiHere,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';
import { goTypes } from '../support/openapi/go-types.ts';
import { INSTALL_TIMEOUT_MS, installTools, TOOLS_FOLDER } from '../support/openapi/tools.ts';

const run = promisify(execFile);
const PROGRAMS = fileURLToPath(new URL('../../node_modules/.bin', import.meta.url));
/** A compiler, on a busy machine that runs it for the first time. */
const COMPILE_TIMEOUT_MS = 170_000;

/** Together 2^53 - 1, the largest balance. */
const FIRST = 2 ** 31 + 1;
const SECOND = Number.MAX_SAFE_INTEGER - FIRST;

let url: string;
let token: string;
let folder: string;

beforeAll(async () => {
  await installTools();
  const database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { AUTH: 'required', RELAY: 'off' }));
  ({ token } = await createApiKey(database, 'generated'));
  folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-generated-'));
  onCleanUp(() => rm(folder, { recursive: true, force: true }));
}, INSTALL_TIMEOUT_MS);
afterAll(cleanUp);

const TYPESCRIPT = `
import createClient from 'openapi-fetch';
import type { components, paths } from './api.ts';

const [baseUrl = '', token = '', ...amounts] = process.argv.slice(2);
const { POST, GET } = createClient<paths>({ baseUrl, headers: { Authorization: 'Bearer ' + token } });

const opened = await POST('/v1/accounts', { body: { id: 'typescript' } });
if (opened.error) throw new Error(opened.error.code);
let applied: components['schemas']['AppliedUpdate'] | undefined;
for (const amount of amounts.map(Number)) {
  const { data, error, response } = await POST('/v1/balance-updates', {
    body: { accountId: 'typescript', amount, metadata: { by: 'openapi-fetch' } },
    params: { header: { 'Idempotency-Key': 'k' + amount } },
  });
  if (error) throw new Error(response.status + ' ' + error.detail);
  applied = data;
}
const refused = await POST('/v1/balance-updates', { body: { accountId: 'typescript', amount: 1 } });
const code: 'balance_out_of_range' | string | undefined = refused.error?.code;
const account = await GET('/v1/accounts/{id}', { params: { path: { id: 'typescript' } } });
console.log(JSON.stringify({ balance: applied?.balance, version: account.data?.version, code }));

export const wrong = () => [
  // @ts-expect-error no such path
  POST('/v1/balance-update', { body: { accountId: 'a', amount: 1 } }),
  // @ts-expect-error an amount is a number
  POST('/v1/balance-updates', { body: { accountId: 'a', amount: '1' } }),
  // @ts-expect-error an account is missing
  POST('/v1/balance-updates', { body: { amount: 1 } }),
  // @ts-expect-error no such status
  GET('/v1/accounts/{id}/holds', { params: { path: { id: 'a' }, query: { status: 'open' } } }),
];
`;

it('TypeScript: compiles in strict mode, refuses what the document refuses, and moves amounts of 53 bits', async () => {
  const api = path.join(folder, 'api.ts');
  await run(path.join(TOOLS_FOLDER, '.bin', 'openapi-typescript'), [`${url}/openapi.json`, '-o', api]);
  await symlink(TOOLS_FOLDER, path.join(folder, 'node_modules'));
  await writeFile(path.join(folder, 'package.json'), '{"type":"module"}');
  const program = path.join(folder, 'client.ts');
  await writeFile(program, TYPESCRIPT);
  const compilerOptions = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noEmit: true },
    ...{ module: 'nodenext', target: 'es2024', allowImportingTsExtensions: true, types: ['node'] },
    typeRoots: [fileURLToPath(new URL('../../node_modules/@types', import.meta.url))],
  };
  await writeFile(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['client.ts'] }));
  await run(path.join(PROGRAMS, 'tsc'), ['-p', folder], { timeout: COMPILE_TIMEOUT_MS }).catch(({ stdout }) =>
    expect.fail(stdout),
  );
  const { stdout } = await run(process.execPath, [program, url, token, String(FIRST), String(SECOND)]);
  expect(JSON.parse(stdout)).toEqual({ balance: Number.MAX_SAFE_INTEGER, version: 2, code: 'balance_out_of_range' });
});

const GO = `
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
)

func post(path string, body any, answer any) int {
	sent, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	request, err := http.NewRequest("POST", os.Args[1]+path, bytes.NewReader(sent))
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Args[2])
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		panic(err)
	}
	return response.StatusCode
}

func main() {
	var opened Account
	post("/v1/accounts", NewAccount{ID: "go"}, &opened)
	var applied AppliedUpdate
	for _, text := range os.Args[3:] {
		amount, _ := strconv.ParseInt(text, 10, 64)
		reference := "quicktype"
		post("/v1/balance-updates", BalanceUpdate{AccountID: opened.ID, Amount: amount, Reference: &reference}, &applied)
	}
	var problem Problem
	status := post("/v1/balance-updates", BalanceUpdate{AccountID: opened.ID, Amount: 1}, &problem)
	fmt.Printf("{\\"balance\\":%d,\\"version\\":%d,\\"status\\":%d,\\"code\\":%q}\\n", applied.Balance, applied.Version, status, problem.Code)
}
`;

const hasGo = spawnSync('go', ['version']).status === 0;
needing('Go: apt-get install golang-go', hasGo).it('Go: compiles, and moves amounts of 53 bits', async () => {
  const { body: openApi } = await send(url, 'GET', '/openapi.json');
  const place = await mkdtemp(path.join(folder, 'go-'));
  await writeFile(path.join(place, 'go.mod'), 'module client\n\ngo 1.18\n');
  await writeFile(path.join(place, 'types.go'), await goTypes(openApi));
  await writeFile(path.join(place, 'main.go'), GO);
  const env = {
    ...process.env,
    GOCACHE: path.join(folder, 'cache'),
    GOPROXY: 'off',
    GOTOOLCHAIN: 'local',
    GOFLAGS: '-p=1',
  };
  await run('go', ['vet', '.'], { cwd: place, env, timeout: COMPILE_TIMEOUT_MS });
  await run('go', ['build', '-o', 'client', '.'], { cwd: place, env, timeout: COMPILE_TIMEOUT_MS });
  const { stdout } = await run(path.join(place, 'client'), [url, token, String(FIRST), String(SECOND)]);
  const range = { status: 400, code: 'balance_out_of_range' };
  expect(JSON.parse(stdout)).toEqual({ balance: Number.MAX_SAFE_INTEGER, version: 2, ...range });
});
