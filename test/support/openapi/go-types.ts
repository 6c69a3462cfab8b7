// The schemas of the OpenAPI document as types of Go, made by quicktype: an integer of 64 bits is
// an int64.
import { load } from './tools.ts';

interface Quicktype {
  InputData: new () => { addInput(input: object): void };
  JSONSchemaInput: new (store: undefined) => { addSource(source: { name: string; schema: string }): Promise<void> };
  quicktype(options: object): Promise<{ lines: string[] }>;
}

/** As one file of package main. */
export async function goTypes({ components }: { components: { schemas?: object } }): Promise<string> {
  const { InputData, JSONSchemaInput, quicktype } = load<Quicktype>('quicktype-core');
  const schemas = JSON.stringify(components.schemas).replaceAll('#/components/schemas/', '#/$defs/');
  const $defs = JSON.parse(schemas) as Record<string, object>;
  const input = new JSONSchemaInput(undefined);
  // Without this one, what no other schema names would be left out.
  const all = Object.fromEntries(Object.keys($defs).map((name) => [name, { $ref: `#/$defs/${name}` }]));
  const root = { $schema: 'https://json-schema.org/draft/2020-12/schema', $defs, type: 'object', properties: all };
  await input.addSource({ name: 'Messages', schema: JSON.stringify(root) });
  const inputData = new InputData();
  inputData.addInput(input);
  const rendererOptions = { package: 'main' };
  const { lines } = await quicktype({ inputData, lang: 'go', rendererOptions });
  return lines.join('\n');
}
