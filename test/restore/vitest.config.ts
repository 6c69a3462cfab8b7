import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/restore/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 300_000,
    maxWorkers: 1, // each has servers of its own
  },
});
