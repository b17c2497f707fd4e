import type { IExecuteSingleFunctions, IHttpRequestOptions } from 'n8n-workflow';

/** The document as the file that the server expects: its name tells how it is read. */
export async function asUpload(
	this: IExecuteSingleFunctions,
	request: IHttpRequestOptions,
): Promise<IHttpRequestOptions> {
	const form = new FormData();
	const text = this.getNodeParameter('documentText') as string;
	const collection = this.getNodeParameter('collection') as string;
	form.append('file', new Blob([text]), this.getNodeParameter('documentName') as string);
	if (collection) form.append('collection', collection);
	return { ...request, body: form as unknown as IHttpRequestOptions['body'], json: false };
}
