"""The style sheet. What a colour says a word or a sign says as well; each text has a contrast of at least 4.5 to 1."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--page:#f5f6f8;--card:#fff;--text:#1b1f24;--faint:#59626d;--edge:#d7dce2;
--well:#17692f;--worse:#8a5300;--down:#b3201a;--well-back:#e3f4e7;--worse-back:#fdf0d9;--down-back:#fde5e3;
--notice:#1f5c94;--notice-back:#e4eff9;--line0:#1f62b5;--line1:#b0521a;--bar:#1f62b5;--bar-back:#dde3ea}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--card:#1d2126;--text:#e7eaee;--faint:#a3adb8;--edge:#343b44;
--well:#7fd695;--worse:#f0bb62;--down:#ff9a92;--well-back:#16331f;--worse-back:#3a2c11;--down-back:#43201e;
--notice:#8fc3f2;--notice-back:#17304a;--line0:#7db4f5;--line1:#f2a56b;--bar:#7db4f5;--bar-back:#343b44}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:84rem;background:var(--page);color:var(--text);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:break-word}
header{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:baseline;justify-content:space-between;margin:0 0 .8rem}
h1{font-size:1.3rem;margin:0}h2,caption{font-size:1.05rem;font-weight:600;text-align:left;margin:0 0 .5rem;padding:0}
caption{padding:0 0 .5rem}p{margin:.4rem 0}a{color:var(--line0)}
header p,.note,small,footer{color:var(--faint);font-size:.85rem}small{display:block;font-weight:400}
section{background:var(--card);border:1px solid var(--edge);border-radius:.6rem;padding:.9rem 1rem;margin:0 0 .8rem}
.health{border-left:.45rem solid var(--well)}.health.worse{border-left-color:var(--worse)}
.health.down{border-left-color:var(--down)}
.health h2{font-size:1.25rem;margin:0 0 .2rem}.health.well h2{color:var(--well)}.health.worse h2{color:var(--worse)}
.health.down h2{color:var(--down)}
.health ul{list-style:none;margin:.6rem 0 0;padding:0}.health li{padding:.5rem 0;border-top:1px solid var(--edge)}
.health li p{margin:.15rem 0 0}
.mark,.tag{display:inline-block;border-radius:.3rem;padding:0 .45rem;font-size:.8rem;font-weight:600;margin-right:.5rem}
.tag{background:var(--notice-back);color:var(--notice);margin:0 0 0 .5rem}
.mark.notice{background:var(--notice-back);color:var(--notice)}
.mark.worse{background:var(--worse-back);color:var(--worse)}.mark.down{background:var(--down-back);color:var(--down)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem 1.2rem;margin:0}
dt{color:var(--faint);font-size:.85rem}dd{margin:0;font-weight:600}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0;border-top:1px solid var(--edge);font-weight:400}
tbody th{font-weight:600}thead th{color:var(--faint);font-size:.85rem;border-top:0;white-space:nowrap}
td{font-variant-numeric:tabular-nums}th,dd,li{overflow-wrap:anywhere}thead th{overflow-wrap:normal}
.wide td:nth-child(n+4){white-space:nowrap}td small{max-width:15rem}.wide tbody th{min-width:8rem}
.state{display:inline-block}.state.well{color:var(--well)}.state.worse{color:var(--worse)}.state.down{color:var(--down)}
.state.well::before{content:"\\2713\\a0"}
.state.worse::before{content:"\\25b2\\a0"}.state.down::before{content:"\\2715\\a0"}
progress{display:block;width:100%;min-width:7rem;max-width:14rem;height:.55rem;margin:.25rem 0;border:0;
border-radius:.3rem;overflow:hidden;background:var(--bar-back);-webkit-appearance:none;appearance:none}
progress::-webkit-progress-bar{background:var(--bar-back)}progress::-webkit-progress-value{background:var(--bar)}
progress::-moz-progress-bar{background:var(--bar)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:.8rem 1.4rem}
figure{margin:0}figcaption{display:flex;flex-wrap:wrap;gap:0 1rem;font-size:.85rem}figcaption strong{width:100%}
svg{display:block;width:100%;height:auto}svg text{font-size:11px;fill:var(--faint)}svg .end{text-anchor:end}
.grid{stroke:var(--edge);stroke-width:1}polyline{fill:none;stroke-width:1.7;stroke-linejoin:round}
polyline.line0{stroke:var(--line0)}polyline.line1{stroke:var(--line1);stroke-dasharray:4 2.5}
.key::before{content:"";display:inline-block;width:1.3rem;vertical-align:.25em;margin-right:.35rem;
border-top:2px solid var(--line0)}
.key.line1::before{border-top:2px dashed var(--line1)}
@media (max-width:62rem){table,tbody,caption{display:block}thead{position:absolute;width:1px;height:1px;
overflow:hidden;clip-path:inset(50%)}tbody tr{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));
gap:.1rem 1.2rem;border-top:1px solid var(--edge);padding:.5rem 0}tbody th{grid-column:1/-1}
tbody th,td{border:0;padding:.1rem 0}td:empty{display:none}
td{display:grid;grid-template-columns:7.5rem 1fr;gap:.5rem}td::before{content:attr(data-label);color:var(--faint)}}
@media (max-width:46rem){body{padding:.6rem}section{padding:.8rem}}
"""

# By which a browser knows that it is this one, and takes no other.
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
