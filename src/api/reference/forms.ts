// Adds what code generators and linters expect in a schema besides what zod emits.

interface Schema {
  type?: unknown;
  format?: unknown;
  pattern?: unknown;
  minimum?: unknown;
  maximum?: unknown;
  minLength?: unknown;
  maxLength?: unknown;
}

const INT32 = 2 ** 31;
/** `2026-11-23T19:43:56.550Z` */
const TIME_CHARACTERS = 24;

/** For each schema of a document. A generator treats an integer without a format as 32 bits. */
export function completeForm({ jsonSchema }: { jsonSchema: Schema }): void {
  if (jsonSchema.type === 'integer') {
    const { minimum, maximum } = jsonSchema;
    const isSmall = Number(minimum) >= -INT32 && Number(maximum) < INT32;
    jsonSchema.format = isSmall ? 'int32' : 'int64';
  }
  if (jsonSchema.format === 'date-time') {
    delete jsonSchema.pattern; // 300 characters that say the same
    if (jsonSchema.maxLength === undefined)
      Object.assign(jsonSchema, { minLength: TIME_CHARACTERS, maxLength: TIME_CHARACTERS });
  }
}
