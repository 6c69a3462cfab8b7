// Whether a topic exchange routes by a binding's key: words between dots, `*` for one word, `#` for any number of them.
// https://www.rabbitmq.com/tutorials/tutorial-five-javascript

/** As RabbitMQ decides it, for routing keys of a few words. */
export function isRouted(bindingKey: string, routingKey: string): boolean {
  return matches(bindingKey.split('.'), routingKey.split('.'));
}

function matches([pattern, ...patterns]: readonly string[], words: readonly string[]): boolean {
  if (pattern === undefined) return words.length === 0;
  const [word, ...rest] = words;
  if (pattern === '#') return matches(patterns, words) || (word !== undefined && matches([pattern, ...patterns], rest));
  return word !== undefined && (pattern === '*' || pattern === word) && matches(patterns, rest);
}
