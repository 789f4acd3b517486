/* An auditor of the dynamic linker that allocates in every call to it. */
#include "e2e_common.h"

#include <link.h>

unsigned
la_version(unsigned version)
{
	e2e_ordinary_calls(2);
	return version < LAV_CURRENT ? version : LAV_CURRENT;
}

unsigned
la_objopen(struct link_map *map, Lmid_t lmid, uintptr_t *cookie)
{
	(void)map;
	(void)lmid;
	(void)cookie;
	e2e_ordinary_calls(2);
	return 0;
}
