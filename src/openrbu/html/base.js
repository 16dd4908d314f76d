const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

// all text goes through here: it never becomes markup
function element(tag, text = "", ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function button(text, act) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

