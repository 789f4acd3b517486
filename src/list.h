/*
 * list.h - an intrusive circular list.  An element that is in no list
 * points to itself.
 *
 * Layer 0.  Not synchronised: the owner of the list is.
 */
#ifndef HZ4_LIST_H
#define HZ4_LIST_H

#include "base.h"

struct hz4_list {
	struct hz4_list *next;
	struct hz4_list *prev;
};

static inline void
hz4_list_init(struct hz4_list *l)
{
	l->next = l;
	l->prev = l;
}

static inline bool
hz4_list_empty(const struct hz4_list *l)
{
	return l->next == l;
}

static inline void
hz4_list_remove(struct hz4_list *e)
{
	e->next->prev = e->prev;
	e->prev->next = e->next;
	hz4_list_init(e);
}

static inline void
hz4_list_push(struct hz4_list *l, struct hz4_list *e)
{
	e->next = l->next;
	e->prev = l;
	l->next->prev = e;
	l->next = e;
}

static inline void
hz4_list_append(struct hz4_list *l, struct hz4_list *e)
{
	hz4_list_push(l->prev, e);
}

#endif
