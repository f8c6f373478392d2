// Follow the system's light or dark until the user chooses one.
if (!window.localStorage.getItem('vite-ui-theme')) window.localStorage.setItem('vite-ui-theme', 'system');

// Cards find here what runs are writing: the server sends the end of it, whole each time, as a message of this window
// to itself; no text takes it away.
const writing = (window.bailiwickWriting ??= new Map());
window.addEventListener('message', (event) => {
  const data = event.data;
  if (event.source !== window || event.origin !== window.location.origin) return;
  if (!data || data.kind !== 'writing' || typeof data.text !== 'string') return;
  if (data.text) writing.set(data.run_id, { text: data.text, cut: data.cut });
  else writing.delete(data.run_id);
  window.dispatchEvent(new Event('bailiwick:writing'));
});

// A new conversation gets its address with the first message, so that a reload comes back to it. The server
// sends the address over the open socket; Chainlit passes it on as a message of this window to itself.
window.addEventListener('message', (event) => {
  const data = event.data;
  if (event.source !== window || event.origin !== window.location.origin) return;
  if (!data || data.kind !== 'conversation' || !/^[\w-]{1,100}$/.test(data.thread_id)) return;
  const address = `${window.location.pathname.split('/thread/')[0].replace(/\/$/, '')}/thread/${data.thread_id}`;
  if (window.location.pathname !== address) window.history.replaceState(window.history.state, '', address);
});

// Chainlit connects twice when a page is opened at a conversation: once before it knows which one, once after.
// Each time it asks for a cookie first, and whichever answer comes last wins the page: when the two overtake
// each other, the page stays at the connection without a conversation and waits for ever. Only the newest
// attempt may go on; an older one never hears of its cookie.
(() => {
  const ask = window.fetch;
  let newest = 0;
  window.fetch = async (...given) => {
    const address = given[0] instanceof Request ? given[0].url : String(given[0]);
    if (!address.endsWith('/set-session-cookie')) return ask(...given);
    const mine = ++newest;
    const settled = await ask(...given).then((answer) => () => answer, (error) => () => { throw error; });
    return mine === newest ? settled() : new Promise(() => {});
  };
})();

// A page at a conversation shows a turning wheel until the conversation is sent over its socket, and asks for it once
// only: when that is lost, with a connection or a server that ended at that moment, the wheel turns for ever. Such a
// page is loaded anew, each time after a longer wait, until it has told everything it can.
(() => {
  const LOOK_MS = 500;
  const PATIENCE_MS = 8000;
  const MOST = 3;
  const key = 'bailiwick-loaded-anew';
  let waited = 0;
  setInterval(() => {
    const opening = window.location.pathname.includes('/thread/') && !document.querySelector('#chat-input');
    waited = opening && navigator.onLine ? waited + LOOK_MS : 0;
    const times = Number(window.sessionStorage.getItem(key));
    if (!opening && times) window.sessionStorage.removeItem(key);
    if (waited < PATIENCE_MS * (times + 1) || times >= MOST) return;
    window.sessionStorage.setItem(key, String(times + 1));
    window.location.reload();
  }, LOOK_MS);
})();
