import { defineConfig } from 'vitest/config';

// `include` stands in the projects only: with `extends`, vitest would merge it and run each file twice.
export default defineConfig({
  test: {
    globalSetup: ['test/global-setup.ts'],
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 10_000 } },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          // A busy machine takes many times as long; what waits for a condition has a limit of its own.
          testTimeout: 180_000,
          hookTimeout: 300_000,
          maxWorkers: 3,
        },
      },
      {
        test: {
          name: 'chaos',
          include: ['test/chaos/**/*.test.ts'],
          testTimeout: 400_000,
          hookTimeout: 180_000,
          // It proves what survives, not how fast: alone, so that servers come back in time.
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
