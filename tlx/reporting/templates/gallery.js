addEventListener("keydown", event => {
  const shown = document.querySelector(":target");
  const names = {Escape: ".shut", ArrowLeft: ".previous", ArrowRight: ".next"};
  const link = shown && shown.querySelector(names[event.key] || "none");
  if (!link || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  location.replace(link.href);
});
