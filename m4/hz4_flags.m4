# Flags that not every compiler or linker takes.

# HZ4_TRY_CFLAGS(VARIABLE, FLAG...)
# ---------------------------------
# Append to VARIABLE each FLAG of the blank-separated list that $CC compiles
# with and does not warn about.
AC_DEFUN([HZ4_TRY_CFLAGS],
[AC_LANG_ASSERT([C])
hz4_save_CFLAGS=$CFLAGS
for hz4_flag in $2; do
	AS_VAR_PUSHDEF([hz4_takes], [hz4_cv_cc_takes_$hz4_flag])
	AC_CACHE_CHECK([whether $CC takes $hz4_flag], [hz4_takes],
		[CFLAGS="$hz4_save_CFLAGS -Werror $hz4_flag"
		 AC_COMPILE_IFELSE([AC_LANG_SOURCE([extern int hz4_unused;])],
			[AS_VAR_SET([hz4_takes], [yes])],
			[AS_VAR_SET([hz4_takes], [no])])])
	AS_VAR_IF([hz4_takes], [yes], [AS_VAR_APPEND([$1], [" $hz4_flag"])])
	AS_VAR_POPDEF([hz4_takes])
done
CFLAGS=$hz4_save_CFLAGS
AC_SUBST([$1])
])# HZ4_TRY_CFLAGS

# HZ4_TRY_LDFLAGS(VARIABLE, FLAG...)
# ----------------------------------
# Append to VARIABLE each FLAG that the linker takes.  Links, never runs.
AC_DEFUN([HZ4_TRY_LDFLAGS],
[AC_LANG_ASSERT([C])
hz4_save_LDFLAGS=$LDFLAGS
for hz4_flag in $2; do
	AS_VAR_PUSHDEF([hz4_takes], [hz4_cv_ld_takes_$hz4_flag])
	AC_CACHE_CHECK([whether the linker takes $hz4_flag], [hz4_takes],
		[LDFLAGS="$hz4_save_LDFLAGS $hz4_flag"
		 AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])],
			[AS_VAR_SET([hz4_takes], [yes])],
			[AS_VAR_SET([hz4_takes], [no])])])
	AS_VAR_IF([hz4_takes], [yes], [AS_VAR_APPEND([$1], [" $hz4_flag"])])
	AS_VAR_POPDEF([hz4_takes])
done
LDFLAGS=$hz4_save_LDFLAGS
AC_SUBST([$1])
])# HZ4_TRY_LDFLAGS

# HZ4_LD_VERSION_SCRIPT
# ---------------------
# Whether a shared object can be linked with a GNU version script.  Sets the
# Automake conditional HAVE_LD_VERSION_SCRIPT.
AC_DEFUN([HZ4_LD_VERSION_SCRIPT],
[AC_CACHE_CHECK([whether the linker takes a version script],
	[hz4_cv_ld_version_script],
	[AS_ECHO(["HZ4_TEST { global: hz4_*; };"]) >conftest.map
	 hz4_save_LDFLAGS=$LDFLAGS
	 hz4_save_CFLAGS=$CFLAGS
	 CFLAGS="$CFLAGS -fPIC"
	 LDFLAGS="$LDFLAGS -shared -Wl,--version-script=conftest.map"
	 AC_LINK_IFELSE([AC_LANG_SOURCE(
		[[int hz4_test(void); int hz4_test(void) { return 0; }]])],
		[hz4_cv_ld_version_script=yes],
		[hz4_cv_ld_version_script=no])
	 CFLAGS=$hz4_save_CFLAGS
	 LDFLAGS=$hz4_save_LDFLAGS
	 rm -f conftest.map])
AM_CONDITIONAL([HAVE_LD_VERSION_SCRIPT],
	[test $hz4_cv_ld_version_script = yes])
])# HZ4_LD_VERSION_SCRIPT
