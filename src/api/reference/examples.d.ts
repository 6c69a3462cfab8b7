interface Sent {
  url: string;
  headers?: Record<string, string>;
  body?: unknown;
}

export function createExamples(newId: () => string): {
  request<Request extends Sent>(request: Request): Request;
  // biome-ignore lint/suspicious/noExplicitAny: bodies of every shape
  response<Response extends { status: number; body?: any }>(response: Response): Response;
};
