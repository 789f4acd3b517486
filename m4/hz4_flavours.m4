# Several builds of the library, its flavours, in one build directory.

# HZ4_DEFINE_FLAVOUR_MACRO(MACRO, VALUE, DESCRIPTION)
# ---------------------------------------------------
# As AC_DEFINE_UNQUOTED, but a -DMACRO=... on the command line comes before
# what config.h says: that is how flavours.am compiles one source for
# several flavours.
AC_DEFUN([HZ4_DEFINE_FLAVOUR_MACRO],
[AH_VERBATIM([$1],
[/* $3 */
#ifndef $1
#undef $1
#endif])
AC_DEFINE_UNQUOTED([$1], [$2])
])# HZ4_DEFINE_FLAVOUR_MACRO

# HZ4_FLAVOURS
# ------------
# With --enable-flavours (hz4_all_flavours is yes) the other three of the
# four builds are made too, besides the one that the other options describe,
# hz4_flavour.  Sets hz4_flavours, their names, and hz4_flavour_libs, their
# targets; both are empty without the option.
AC_DEFUN([HZ4_FLAVOURS],
[AC_REQUIRE([LT_INIT])
hz4_flavours=
hz4_flavour_libs=
AS_IF([test "$hz4_all_flavours" = yes],
	[AS_IF([test "$enable_shared" = no],
		[AC_MSG_ERROR(m4_normalize([--enable-flavours builds shared
			libraries: it cannot be combined with
			--disable-shared]))])
	 for hz4_one in base dual-tier stats dual-tier+stats; do
		AS_IF([test $hz4_one != $hz4_flavour],
			[AS_VAR_APPEND([hz4_flavours], [" $hz4_one"])
			 AS_VAR_APPEND([hz4_flavour_libs],
				[" flavours/$hz4_one/libhz4.la"])])
	 done])
AC_SUBST([hz4_flavours])
AC_SUBST([hz4_flavour_libs])
])# HZ4_FLAVOURS
