// With what a service's Node is started, besides its script. Plain JavaScript, for those who run before Node 24 is found.
// The same for `npm run api`, `npm run worker` (package.json) and the container (Dockerfile).
//
// The young generation of the heap grows to 128 MB under load by default. Of 16 + 16 MB more stays in the processor's cache:
// a hot account was 7 to 20 % faster so, and the process 100 MB smaller; with 8 MB it was slower again.
export const SERVICE_NODE_OPTIONS = ['--max-semi-space-size=16'];
