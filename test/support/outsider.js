// Runs in a browser, in a page of another origin than the service: everything that such a page can tell about an address
// without being allowed to read it. https://xsleaks.dev

const ELEMENTS = [
  ['object', 'data', {}],
  ['object', 'data', { type: 'application/json' }],
  ['embed', 'src', {}],
  ['iframe', 'src', {}],
  ['img', 'src', {}],
  ['script', 'src', {}],
  ['script', 'src', { type: 'module' }],
  ['link', 'href', { rel: 'stylesheet' }],
  ['link', 'href', { rel: 'preload', as: 'fetch' }],
  ['link', 'href', { rel: 'prefetch' }],
  ['video', 'src', {}],
  ['audio', 'src', {}],
];
/** More than an answer of a busy machine takes; what has not happened by then does not. */
const WAIT_MS = 15_000;

const waited = () => new Promise((resolve) => setTimeout(() => resolve('nothing'), WAIT_MS));
const eventOf = (target, ...types) =>
  Promise.race([
    ...types.map((type) => new Promise((resolve) => target.addEventListener(type, () => resolve(type)))),
    waited(),
  ]);
const tried = (look) => {
  try {
    return look();
  } catch (error) {
    return error.name;
  }
};

async function embed(name, attribute, others, address) {
  const element = document.createElement(name);
  for (const [other, value] of Object.entries(others)) element.setAttribute(other, value);
  const event = eventOf(element, 'load', 'error', 'loadedmetadata');
  element.setAttribute(attribute, address);
  document.body.append(element);
  const seen = {
    event: await event,
    where: tried(() => element.contentWindow?.location.href),
    content: tried(() => element.contentDocument?.body.innerHTML),
    frames: element.contentWindow?.length,
    size: [element.clientWidth, element.clientHeight, element.naturalWidth, String(element.duration)],
    rules: tried(() => element.sheet?.cssRules.length),
  };
  element.remove();
  return seen;
}

async function ask(address, mode) {
  return fetch(address, { mode, credentials: 'include' }).then(
    ({ type, status }) => [type, status],
    (error) => error.name,
  );
}

async function openWindow(address) {
  const opened = window.open(address);
  // Until there is an answer, it shows an empty page that anyone may look at.
  const deadline = performance.now() + WAIT_MS;
  while (tried(() => opened.location.href) === 'about:blank' && performance.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 50));
  const seen = [opened.closed, opened.length, tried(() => opened.location.href)];
  opened.close();
  return seen;
}

/** Sizes and states, which are exact; how long it took is noise, and a matter of what the service did. */
function timings(address) {
  return performance.getEntriesByName(address).map((entry) => {
    const { initiatorType, transferSize, encodedBodySize, decodedBodySize, responseStatus, contentType } = entry;
    return [initiatorType, transferSize, encodedBodySize, decodedBodySize, responseStatus, contentType].join();
  });
}

globalThis.lookAt = async (address) => {
  const seen = {};
  for (const [name, attribute, others] of ELEMENTS) {
    seen[`${name} ${JSON.stringify(others)}`] = await embed(name, attribute, others, address);
  }
  for (const mode of ['no-cors', 'cors']) seen[`fetch ${mode}`] = await ask(address, mode);
  seen.window = await openWindow(address);
  const source = new EventSource(address);
  seen.stream = await eventOf(source, 'open', 'error');
  source.close();
  return { ...seen, timings: timings(address).sort() };
};

/** Whatever a page may send without a question before it. */
globalThis.sendEverywhere = async (address, body) => {
  navigator.sendBeacon(address, body);
  for (const mode of ['no-cors', 'cors']) {
    for (const type of ['text/plain', 'application/json']) {
      await fetch(address, { method: 'POST', mode, body, headers: { 'content-type': type } }).catch(() => {});
    }
  }
  document.body.innerHTML = '<form method="post" enctype="text/plain"><input></form>';
  const [form] = document.forms;
  form.action = address;
  form.elements[0].name = body.replace(/\}$/, ',"x":"');
  form.elements[0].value = '"}';
  form.submit();
};
