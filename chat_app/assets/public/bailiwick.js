// Follow the system's light or dark until the user chooses one.
if (!window.localStorage.getItem('vite-ui-theme')) window.localStorage.setItem('vite-ui-theme', 'system');

// A new conversation gets its address with the first message, so that a reload comes back to it. The server
// sends the address over the open socket; Chainlit passes it on as a message of this window to itself.
window.addEventListener('message', (event) => {
  const data = event.data;
  if (event.source !== window || event.origin !== window.location.origin) return;
  if (!data || data.kind !== 'conversation' || !/^[\w-]{1,100}$/.test(data.thread_id)) return;
  const address = `${window.location.pathname.split('/thread/')[0].replace(/\/$/, '')}/thread/${data.thread_id}`;
  if (window.location.pathname !== address) window.history.replaceState(window.history.state, '', address);
});

// A page that is opened at a conversation sometimes connects before it knows which one, and then waits for
// ever. Leave the conversation and enter it again, as a click in the list does; each time more patiently.
(() => {
  let patience = 2_000;
  let since = Date.now();
  const go = (address) => {
    window.history.replaceState(null, '', address);
    window.dispatchEvent(new PopStateEvent('popstate'));
  };
  const watch = window.setInterval(() => {
    const address = window.location.pathname;
    if (!address.includes('/thread/') || document.getElementById('chat-input') || patience > 60_000) {
      window.clearInterval(watch);
      return;
    }
    if (!document.getElementById('header')) since = Date.now();
    if (Date.now() - since < patience) return;
    patience *= 2;
    since = Date.now();
    go(`${address.split('/thread/')[0]}/`);
    window.setTimeout(() => go(address), 400);
  }, 250);
})();
