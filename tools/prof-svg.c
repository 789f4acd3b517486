/*
 * prof-svg.c - a flame graph: one box for each function in its place of the
 * stacks, as wide as what it holds.  The file needs nothing else; its script
 * zooms into the box that is clicked and marks what is searched for.
 */
#include "config.h"

#include "prof.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH = 1200, ROW = 17, HEAD = 60, LEAST = 2 /* of 10,000 */ };

struct node {
	char *name;
	double bytes, x;
	unsigned depth;
	struct node *parent;
	/* The first child and the last; the next of a parent. */
	struct node *child, *last, *next;
};

/* All boxes but the root, by parent and name. */
struct boxes {
	struct node **slot;
	size_t slots, n; /* a power of 2, twice as many as there are */
};

static const char script[] =
	"const W=1200,svg=document.documentElement,\n"
	" boxes=[...svg.querySelectorAll('g.f')],\n"
	" find=document.getElementById('find'),\n"
	" info=document.getElementById('info');\n"
	"let at=boxes[0],word='';\n"
	"const num=(b,k)=>+b.dataset[k];\n"
	"function place(){\n"
	" const x0=num(at,'x'),w0=num(at,'w'),d0=num(at,'d');\n"
	" for(const b of boxes){\n"
	"  let x=num(b,'x'),w=num(b,'w');const d=num(b,'d');\n"
	"  const above=d<d0&&x<=x0&&x+w>=x0+w0-1e-9;\n"
	"  const inside=d>=d0&&x>=x0-1e-9&&x+w<=x0+w0+1e-9;\n"
	"  b.style.display=above||inside?'':'none';\n"
	"  if(above){x=x0;w=w0}\n"
	"  const px=(x-x0)/w0*W,pw=w/w0*W,r=b.children[1],t=b.children[2];\n"
	"  r.setAttribute('x',px);r.setAttribute('width',Math.max(pw-.5,.2));\n"
	"  b.style.opacity=above?.55:1;\n"
	"  const n=Math.floor((pw-6)/6.6),s=b.dataset.n;\n"
	"  t.setAttribute('x',px+3);\n"
	"  t.textContent=n<3?'':s.length<=n?s:s.slice(0,n-2)+'..';\n"
	" }\n"
	"}\n"
	"function search(w){\n"
	" word=w;let re=null,sum=0,end=-1;\n"
	" try{re=w?new RegExp(w):null}catch(e){re=null}\n"
	" const hits=[];\n"
	" for(const b of boxes){\n"
	"  const hit=re!==null&&re.test(b.dataset.n);\n"
	"  b.children[1].classList.toggle('hit',hit);\n"
	"  if(hit)hits.push([num(b,'x'),num(b,'x')+num(b,'w')]);\n"
	" }\n"
	" hits.sort((a,b)=>a[0]-b[0]);\n"
	" for(const[a,b]of hits){if(b>end){sum+=b-Math.max(a,end,0);end=b}}\n"
	" find.textContent=re?'\"'+w+'\": '+(100*sum).toFixed(1)+"
	"'% (click: clear)':'Search (Ctrl-F)';\n"
	"}\n"
	"function ask(){\n"
	" if(word)search('');\n"
	" else{const w=prompt('Functions whose name matches:','');"
	"if(w)search(w)}\n"
	"}\n"
	"for(const b of boxes){\n"
	" b.addEventListener('click',()=>{at=b;place()});\n"
	" b.addEventListener('mouseover',()=>{"
	"info.textContent=b.children[0].textContent});\n"
	"}\n"
	"find.addEventListener('click',ask);\n"
	"window.addEventListener('keydown',e=>{\n"
	" if((e.ctrlKey||e.metaKey)&&e.key==='f'){e.preventDefault();ask()}\n"
	" if(e.key==='Escape'){at=boxes[0];search('');place()}\n"
	"});\n"
	"place();search('');\n";

static void
put_text(FILE *to, const char *text)
{
	for (; *text != '\0'; text++)
		switch (*text) {
		case '<':
			fputs("&lt;", to);
			break;
		case '>':
			fputs("&gt;", to);
			break;
		case '&':
			fputs("&amp;", to);
			break;
		case '"':
			fputs("&quot;", to);
			break;
		default:
			fputc((unsigned char)*text < ' ' ? '?' : *text, to);
		}
}

static struct node **
slot_of(const struct boxes *b, const struct node *parent, const char *name)
{
	uint64_t h = (uintptr_t)parent;
	const char *at;
	size_t i;

	for (at = name; *at != '\0'; at++)
		h = (h ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
	h *= UINT64_C(0x9e3779b97f4a7c15);
	for (i = (size_t)(h >> 32) & (b->slots - 1); b->slot[i] != NULL;
	     i = (i + 1) & (b->slots - 1))
		if (b->slot[i]->parent == parent &&
		    strcmp(b->slot[i]->name, name) == 0)
			break;
	return &b->slot[i];
}

static void
make_room(struct boxes *b)
{
	struct node **old = b->slot;
	size_t slots = b->slots, i;

	if (b->n * 2 < slots)
		return;
	b->slots = slots > 0 ? slots * 2 : 1024;
	b->slot = need(calloc(b->slots, sizeof(struct node *)));
	for (i = 0; i < slots; i++)
		if (old[i] != NULL)
			*slot_of(b, old[i]->parent, old[i]->name) = old[i];
	free(old);
}

static struct node *
child_of(struct boxes *b, struct node *parent, const char *name)
{
	struct node **at, *n;

	make_room(b);
	at = slot_of(b, parent, name);
	if (*at != NULL)
		return *at;
	*at = n = need(calloc(1, sizeof *n));
	b->n++;
	n->name = need(strdup(name));
	n->parent = parent;
	n->depth = parent->depth + 1;
	if (parent->last != NULL)
		parent->last->next = n;
	else
		parent->child = n;
	parent->last = n;
	return n;
}

static void
add_line(struct boxes *b, struct node *root, const struct line *l)
{
	char *text = need(strdup(l->names)), *rest = text, *name;
	struct node *n = root;

	root->bytes += l->bytes;
	while ((name = strsep(&rest, ";")) != NULL) {
		n = child_of(b, n, name);
		n->bytes += l->bytes;
	}
	free(text);
}

/* The next box: above `n`, beside it, or beside what it stands on. */
static struct node *
next_box(struct node *n, double least)
{
	struct node *c = n->child;

	for (;;) {
		for (; c != NULL; c = c->next)
			if (c->bytes >= least)
				return c;
		if (n->parent == NULL)
			return NULL;
		c = n->next;
		n = n->parent;
	}
}

static unsigned
count_rows(struct node *root, double least)
{
	struct node *n;
	unsigned most = 0;

	for (n = root; n != NULL; n = next_box(n, least))
		most = n->depth > most ? n->depth : most;
	return most + 1;
}

/* The same colour for the same name, warm ones. */
static void
put_colour(FILE *to, const char *name)
{
	unsigned h = 17;

	while (*name != '\0')
		h = h * 31 + (unsigned char)*name++;
	fprintf(to, "rgb(%u,%u,%u)", 205 + h % 50, 80 + h / 50 % 130,
		30 + h / 7000 % 40);
}

static void
put_box(FILE *to, const struct node *n, double total, unsigned rows)
{
	unsigned y = HEAD + (rows - 1 - n->depth) * ROW;

	fprintf(to, "<g class=\"f\" data-x=\"%.9g\" data-w=\"%.9g\" "
		    "data-d=\"%u\" data-n=\"",
		n->x / total, n->bytes / total, n->depth);
	put_text(to, n->name);
	fputs("\"><title>", to);
	put_text(to, n->name);
	fprintf(to, ": %.0f bytes, %.2f%%</title><rect x=\"%.2f\" y=\"%u\" "
		    "width=\"%.2f\" height=\"%d\" fill=\"",
		n->bytes, 100 * n->bytes / total, n->x / total * WIDTH, y,
		n->bytes / total * WIDTH, ROW - 1);
	put_colour(to, n->name);
	fprintf(to, "\"/><text x=\"%.2f\" y=\"%u\"></text></g>\n",
		n->x / total * WIDTH + 3, y + 12);
}

static void
put_boxes(FILE *to, struct node *root, double total, double least,
	  unsigned rows)
{
	struct node *n, *c;
	double x;

	for (n = root; n != NULL; n = next_box(n, least)) {
		put_box(to, n, total, rows);
		x = n->x;
		for (c = n->child; c != NULL; c = c->next) {
			c->x = x;
			x += c->bytes;
		}
	}
}

void
show_svg(FILE *to, const struct lines *l, const char *title)
{
	struct node root = { .name = (char *)(uintptr_t) "all" };
	struct boxes boxes = { NULL, 0, 0 };
	double total, least;
	unsigned rows;
	size_t i;

	for (i = 0; i < l->n; i++)
		add_line(&boxes, &root, &l->line[i]);
	free(boxes.slot);
	total = root.bytes > 0 ? root.bytes : 1;
	least = LEAST * total / 10000;
	rows = count_rows(&root, least);
	fprintf(to, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		    "<svg xmlns=\"http://www.w3.org/2000/svg\" version="
		    "\"1.1\" viewBox=\"0 0 %d %u\" width=\"%d\">\n"
		    "<style>text{font:11px monospace;pointer-events:none}"
		    ".f{cursor:pointer}.hit{fill:#b040e0}"
		    "#find{pointer-events:all;cursor:pointer}</style>\n"
		    "<rect width=\"100%%\" height=\"100%%\" "
		    "fill=\"#fafafa\"/>\n<text x=\"3\" y=\"18\" "
		    "style=\"font-size:14px\">",
		WIDTH, HEAD + rows * ROW + 10, WIDTH);
	put_text(to, title);
	fprintf(to, "</text>\n<text x=\"%d\" y=\"18\" id=\"find\">Search"
		    "</text>\n<text x=\"3\" y=\"40\" id=\"info\"></text>\n",
		WIDTH - 300);
	put_boxes(to, &root, total, least, rows);
	fprintf(to, "<script>//<![CDATA[\n%s//]]></script>\n</svg>\n", script);
}
