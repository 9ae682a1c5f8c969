// A classic script: browsers load no modules into a page that was opened as a file, so that nothing else would tell.
if (location.protocol === "file:") {
  document.getElementById("message").textContent =
    "Browsers do not run this page from a file. In its folder type: python -m http.server, and open " +
    "http://localhost:8000. Or export with --single-file: that page can be opened as a file.";
  document.getElementById("message").hidden = false;
  document.getElementById("status").textContent = "";
  document.body.dataset.state = "failed";
}
