import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    globalSetup: ['test/support/global-setup.ts'],
    include: ['test/attacks/*.test.ts'],
    testTimeout: 1_800_000,
    hookTimeout: 300_000,
    disableConsoleIntercept: true, // a row of the table at a time
  },
});
