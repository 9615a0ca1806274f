// Carries out steps with the AWS SDK for JavaScript, as sdk.py does with the Python ones.
const fs = require("fs");
const { pipeline } = require("stream/promises");
const { S3Client, CreateBucketCommand, DeleteBucketCommand, ListBucketsCommand, GetObjectCommand, PutObjectCommand,
  DeleteObjectsCommand, paginateListObjectsV2 } = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");

const PART = 8 * 1024 * 1024;

function sdk(endpoint) {
  const settings = {
    endpoint: endpoint.url, region: endpoint.region, forcePathStyle: true,
    credentials: { accessKeyId: endpoint.access_key, secretAccessKey: endpoint.secret_key },
  };
  const client = new S3Client(settings);
  const keys = async (Bucket, Prefix) => {
    const found = [];
    for await (const page of paginateListObjectsV2({ client }, { Bucket, Prefix })) {
      for (const entry of page.Contents ?? []) found.push(entry.Key);
    }
    return found;
  };
  return {
    keys,
    make_bucket: async (Bucket) => { await client.send(new CreateBucketCommand({ Bucket })); },
    remove_bucket: async (Bucket) => { await client.send(new DeleteBucketCommand({ Bucket })); },
    buckets: async () => (await client.send(new ListBucketsCommand({}))).Buckets.map((bucket) => bucket.Name),
    // lib-storage sends in parts above the part size; below, both ways of one put: from memory and as a stream.
    upload: async (Bucket, Key, path) => {
      const size = fs.statSync(path).size;
      if (size > PART) {
        await new Upload({ client, partSize: PART, params: { Bucket, Key, Body: fs.createReadStream(path) } }).done();
      } else if (size % 2) {
        await client.send(new PutObjectCommand({ Bucket, Key, Body: fs.createReadStream(path), ContentLength: size }));
      } else {
        await client.send(new PutObjectCommand({ Bucket, Key, Body: fs.readFileSync(path) }));
      }
    },
    download: async (Bucket, Key, path) => {
      const got = await client.send(new GetObjectCommand({ Bucket, Key }));
      await pipeline(got.Body, fs.createWriteStream(path));
    },
    remove_all: async (Bucket, prefix) => {
      const found = await keys(Bucket, prefix);
      for (let at = 0; at < found.length; at += 1000) {
        const Objects = found.slice(at, at + 1000).map((Key) => ({ Key }));
        const answer = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects } }));
        if (answer.Errors?.length) throw new Error(JSON.stringify(answer.Errors));
      }
    },
    presign: async (Bucket, Key, method) => {
      const Command = { GET: GetObjectCommand, PUT: PutObjectCommand }[method];
      // By default the URL would carry the checksum of an empty body.
      const presigner = new S3Client({ ...settings, requestChecksumCalculation: "WHEN_REQUIRED" });
      return getSignedUrl(presigner, new Command({ Bucket, Key }), { expiresIn: 600 });
    },
  };
}

(async () => {
  const job = JSON.parse(fs.readFileSync(0, "utf8"));
  const one = sdk(job.endpoint);
  const results = [];
  for (const [name, ...args] of job.steps) results.push((await one[name](...args)) ?? null);
  process.stdout.write(JSON.stringify(results));
})().catch((error) => { console.error(error); process.exit(1); });
