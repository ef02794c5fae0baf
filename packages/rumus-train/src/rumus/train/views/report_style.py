"""The style of a report's page, light and dark, and its script for the pointer."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{--back:#fff;--card:#f6f7f9;--text:#1c2330;--dim:#687182;--rule:#dfe3ea;
--c0:#2563c9;--c1:#d9631e;--c2:#2a8f5b;--c3:#8b4fc0;--c4:#b3364f;--c5:#6d6a1f}
@media(prefers-color-scheme:dark){:root{--back:#12161d;--card:#1a2029;--text:#e4e8ef;--dim:#929cad;
--rule:#2c3441;--c0:#6ea3f7;--c1:#f2935c;--c2:#5cc491;--c3:#bd8df0;--c4:#f07d92;--c5:#c9c464}}
:root{color-scheme:light dark}*{box-sizing:border-box}
body{margin:0 auto;max-width:1220px;padding:28px 22px 60px;background:var(--back);color:var(--text);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:25px;margin:0}h2{font-size:17px;margin:34px 0 10px}small,.dim{color:var(--dim)}
.state{display:inline-block;margin-left:10px;padding:1px 10px;border-radius:10px;font-size:13px;
vertical-align:middle;background:var(--card);border:1px solid var(--rule)}
.facts{display:flex;flex-wrap:wrap;gap:10px 34px;margin:16px 0 0;padding:0}
.facts div{min-width:90px}.facts dt{color:var(--dim);font-size:13px}
.facts dd{margin:0;font-size:18px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:16px}
.matrices{grid-template-columns:repeat(auto-fill,minmax(min(460px,100%),1fr))}
figure{margin:0;padding:12px 14px 8px;background:var(--card);border-radius:8px;position:relative}
figcaption{font-weight:600}figcaption small{font-weight:400;margin-left:6px}
.legend{float:right;font-weight:400;font-size:13px}
.legend i{display:inline-block;width:14px;height:3px;margin:0 5px 4px 14px;background:currentColor}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font-size:12px}
.end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:var(--rule)}.axis{stroke:var(--dim)}
.line{fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round}
.band{fill:currentColor;opacity:.16}circle{fill:currentColor}.cursor{stroke:var(--dim)}.cursor[hidden]{display:none}
output{position:absolute;right:16px;bottom:40px;font-size:13px;background:var(--back);
border-radius:4px;padding:0 6px}
.shade{fill:currentColor}.edge{fill:none;stroke:var(--rule)}
svg .cell{fill:var(--text);text-anchor:middle}svg .dark{fill:var(--back)}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}
.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}
.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(360px,100%),1fr));
gap:0 34px}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{padding:4px 12px 4px 0;text-align:left;
border-bottom:1px solid var(--rule);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--dim);font-weight:500;white-space:nowrap}td.number{font-variant-numeric:tabular-nums}
pre{white-space:pre-wrap;background:var(--card);padding:10px 14px;border-radius:8px}
"""
SCRIPT: Final = """
for(const figure of document.querySelectorAll("figure[data-lines]")){
const lines=JSON.parse(figure.dataset.lines),svg=figure.querySelector("svg");
const cursor=figure.querySelector(".cursor"),said=figure.querySelector("output");
svg.addEventListener("mousemove",event=>{
const box=svg.getBoundingClientRect();
const at=(event.clientX-box.left)*svg.viewBox.baseVal.width/box.width;
let step,place;
const found=lines.map(line=>{
const near=line.points.reduce((a,b)=>Math.abs(b[0]-at)<Math.abs(a[0]-at)?b:a);
if(place===undefined||Math.abs(near[0]-at)<Math.abs(place-at))[place,step]=near;
return line.name+" "+near[2]});
cursor.removeAttribute("hidden");cursor.setAttribute("x1",place);cursor.setAttribute("x2",place);
said.textContent="step "+step.toLocaleString("en")+": "+found.join(", ")});
svg.addEventListener("mouseleave",()=>{cursor.setAttribute("hidden","hidden");said.textContent=""})}
"""
