/*
 * Counts the calls by which a process changes files below a directory, and does something at one of them.
 *
 * To be loaded with LD_PRELOAD. Settings, all by environment:
 *
 *   TORTURE_BELOW   files whose path begins so are counted, others are left alone
 *   TORTURE_PAGE    a file of one page, shared with whoever watches: see `struct page`
 *   TORTURE_DO      what happens at call number `TORTURE_AT`:
 *                     kill   the process is killed before the call
 *                     half   of a write only half is done, then the process is killed; other calls as `kill`
 *                     eio, enospc   the call fails and does nothing; a failed sync drops what was not synced
 *                     lie    a sync drops what was not synced, and says that all is well; other calls do what they should
 *                     slow   every sync takes TORTURE_USEC longer
 *                     nosync no sync does anything, at any call
 *                     nolock every lock of a whole file is given
 *                     none   it is only counted
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct page {
    atomic_ulong calls;  /* counted so far */
    atomic_ulong at;     /* number of the call at which it happened, 0 before */
    atomic_ulong again;  /* syncs of a segment that had failed to sync before */
    atomic_ulong syncs;  /* syncs counted so far */
    char what[32];       /* name of that call */
    char path[256];      /* its file */
};

enum action { NONE, KILL, HALF, FAIL, LIE, NOSYNC, NOLOCK, SLOW };

#define FILES 4096
static struct file {
    char path[256];
    off_t synced;
    int is_ours, is_lost;
} files[FILES];

static struct page *page;
static char below[256];
static unsigned long at_call;
static unsigned delay;
static enum action action;
static int error_number;

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("TORTURE_PAGE"), *prefix = getenv("TORTURE_BELOW");
    const char *what = getenv("TORTURE_DO"), *at = getenv("TORTURE_AT"), *usec = getenv("TORTURE_USEC");
    if (!where || !prefix) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, where, O_RDWR | O_CLOEXEC);
    if (fd < 0) abort();
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page == MAP_FAILED) abort();
    snprintf(below, sizeof below, "%s", prefix);
    at_call = at ? strtoul(at, NULL, 10) : 0;
    delay = usec ? (unsigned)strtoul(usec, NULL, 10) : 0;
    if (!what) what = "none";
    action = !strcmp(what, "kill") ? KILL : !strcmp(what, "half") ? HALF : !strcmp(what, "nosync") ? NOSYNC
           : !strcmp(what, "lie") ? LIE
           : !strcmp(what, "nolock") ? NOLOCK : !strcmp(what, "slow") ? SLOW : !strcmp(what, "none") ? NONE : FAIL;
    error_number = !strcmp(what, "eio") ? EIO : ENOSPC;
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

static int is_below(const char *path) {
    return page && path && !strncmp(path, below, strlen(below));
}

static struct file *file_of(int fd) {
    return fd >= 0 && fd < FILES && files[fd].is_ours ? &files[fd] : NULL;
}

/* Counts a call; 1 when it is to fail. `half` is done before a kill by halves. */
static int counted(const char *what, const char *path) {
    unsigned long nth = atomic_fetch_add(&page->calls, 1) + 1;
    if (nth != at_call || action == NONE || action > LIE) return 0;
    snprintf(page->what, sizeof page->what, "%s", what);
    snprintf(page->path, sizeof page->path, "%s", path);
    atomic_store(&page->at, nth);
    if (action == KILL) die();
    if (action == FAIL) errno = error_number;
    return action == FAIL ? 1 : action == LIE ? 0 : 2;
}

static void opened(int fd, const char *path) {
    if (fd < 0 || fd >= FILES) return;
    struct file *file = &files[fd];
    file->is_ours = is_below(path);
    if (!file->is_ours) return;
    struct stat status;
    snprintf(file->path, sizeof file->path, "%s", path);
    file->is_lost = 0;
    file->synced = fstat(fd, &status) == 0 ? status.st_size : 0;
}

static int open_counted(const char *name, int dir, const char *path, int flags, mode_t mode) {
    int makes = (flags & O_CREAT) != 0;
    /* Opening a file that is there changes nothing, even with O_CREAT. */
    if (makes && is_below(path) && faccessat(dir, path, F_OK, 0) != 0) {
        int what = counted(name, path);
        if (what == 1) return -1;
        if (what == 2) die();
    }
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    int before = errno;
    opened(fd, path);
    errno = before;
    return fd;
}

#define OPENING(name, ...)                                 \
    mode_t mode = 0;                                       \
    if (flags & (O_CREAT | __O_TMPFILE)) {                 \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode = va_arg(rest, mode_t);                       \
        va_end(rest);                                      \
    }                                                      \
    return open_counted(name, __VA_ARGS__, flags, mode);

int open(const char *path, int flags, ...) { OPENING("open", AT_FDCWD, path) }
int open64(const char *path, int flags, ...) { OPENING("open", AT_FDCWD, path) }
int openat(int dir, const char *path, int flags, ...) { OPENING("open", dir, path) }
int openat64(int dir, const char *path, int flags, ...) { OPENING("open", dir, path) }

int close(int fd) {
    if (fd >= 0 && fd < FILES) files[fd].is_ours = 0;
    return (int)syscall(SYS_close, fd);
}

/* A write; `half` does the first half of it. */
#define WRITING(name, whole, half)                         \
    struct file *file = file_of(fd);                       \
    if (file) {                                            \
        int what = counted(name, file->path);              \
        if (what == 1) return -1;                          \
        if (what == 2) {                                   \
            (void)!(half);                                 \
            die();                                         \
        }                                                  \
    }                                                      \
    return (ssize_t)(whole);

ssize_t write(int fd, const void *from, size_t size) {
    WRITING("write", syscall(SYS_write, fd, from, size), syscall(SYS_write, fd, from, size / 2))
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    WRITING("pwrite", syscall(SYS_pwrite64, fd, from, size, at), syscall(SYS_pwrite64, fd, from, size / 2, at))
}
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    WRITING("pwrite", syscall(SYS_pwrite64, fd, from, size, at), syscall(SYS_pwrite64, fd, from, size / 2, at))
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    WRITING("writev", syscall(SYS_writev, fd, parts, count), syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2))
}

/* What was not synced before is gone, as some systems do it: later a second sync may succeed and lie. */
static void lose(struct file *file, int fd) {
    struct stat status;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > file->synced && strstr(file->path, ".jsonl.zst"))
        syscall(SYS_ftruncate, fd, file->synced);
    file->is_lost = 1;
}

static int synced(const char *name, long number, int fd) {
    struct file *file = file_of(fd);
    if (!file) return (int)syscall(number, fd);
    if (file->is_lost && strstr(file->path, ".jsonl.zst")) atomic_fetch_add(&page->again, 1);
    atomic_fetch_add(&page->syncs, 1);
    int is_lie = action == LIE && atomic_load(&page->calls) + 1 == at_call;
    int what = counted(name, file->path);
    if (is_lie) {
        lose(file, fd);
        return 0;
    }
    if (what == 1) {
        lose(file, fd);
        errno = error_number;
        return -1;
    }
    if (what == 2) die();
    if (action == NOSYNC) return 0;
    if (action == SLOW) usleep(delay);
    int done = (int)syscall(number, fd);
    struct stat status;
    if (done == 0 && fstat(fd, &status) == 0) file->synced = status.st_size;
    return done;
}

int fsync(int fd) { return synced("fsync", SYS_fsync, fd); }
int fdatasync(int fd) { return synced("fdatasync", SYS_fdatasync, fd); }

int sync_file_range(int fd, off64_t from, off64_t size, unsigned flags) {
    return action == NOSYNC ? 0 : (int)syscall(SYS_sync_file_range, fd, from, size, flags);
}

int flock(int fd, int how) { return action == NOLOCK ? 0 : (int)syscall(SYS_flock, fd, how); }

/* A call with a path or a file that is done or not. */
#define DOING(name, path, whole)                           \
    if (is_below(path)) {                                  \
        int what = counted(name, path);                    \
        if (what == 1) return -1;                          \
        if (what == 2) die();                              \
    }                                                      \
    return (int)(whole);

int ftruncate(int fd, off_t size) {
    struct file *file = file_of(fd);
    DOING("ftruncate", file ? file->path : NULL, syscall(SYS_ftruncate, fd, size))
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int rename(const char *from, const char *to) { DOING("rename", to, syscall(SYS_rename, from, to)) }
int renameat(int dir, const char *from, int other, const char *to) {
    DOING("rename", to, syscall(SYS_renameat, dir, from, other, to))
}
int unlink(const char *path) { DOING("unlink", path, syscall(SYS_unlink, path)) }
int unlinkat(int dir, const char *path, int flags) { DOING("unlink", path, syscall(SYS_unlinkat, dir, path, flags)) }
int rmdir(const char *path) { DOING("rmdir", path, syscall(SYS_rmdir, path)) }
int mkdir(const char *path, mode_t mode) { DOING("mkdir", path, syscall(SYS_mkdir, path, mode)) }
int link(const char *from, const char *to) { DOING("link", to, syscall(SYS_link, from, to)) }
int posix_fallocate(int fd, off_t at, off_t size) {
    struct file *file = file_of(fd);
    DOING("fallocate", file ? file->path : NULL, syscall(SYS_fallocate, fd, 0, at, size) ? errno : 0)
}
int fallocate(int fd, int mode, off_t at, off_t size) {
    struct file *file = file_of(fd);
    DOING("fallocate", file ? file->path : NULL, syscall(SYS_fallocate, fd, mode, at, size))
}
