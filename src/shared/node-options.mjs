// The Node options of each service. Plain JavaScript, because it also runs before Node 24 is found.
// The container uses the same (Dockerfile).
//
// The young generation of the heap grows to 128 MB under load by default. With 16 + 16 MB, after 40 s of one hot account, the API took
// 201 and 244 MB instead of 307 and 311, and was as fast; with the relay deferred it was 7 to 20 % faster, and with 8 MB slower again.
export const SERVICE_NODE_OPTIONS = ['--max-semi-space-size=16'];
